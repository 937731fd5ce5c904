"""Exact selection against a stable sort in numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.core import topk
from regrow.core.errors import RegrowError
from regrow.core.topk import count_largest, largest

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INF = math.inf
TIED = st.sampled_from([-2.5, -1.0, -0.0, 0.0, 0.0, 0.0, 1.0, 1.5, INF, -INF])
NUMBERS = TIED | st.floats(allow_nan=False, width=16)
LISTS = st.lists(NUMBERS, max_size=60)


def oracle(scores: Tensor, k: int) -> Tensor:
    """The first k of a stable descending sort of the flat scores."""
    flat = scores.double().numpy().reshape(-1)
    keep = np.zeros(flat.size, dtype=bool)
    keep[np.argsort(-flat, kind="stable")[:k]] = True
    return torch.from_numpy(keep.reshape(tuple(scores.shape)))


def selectable(scores: Tensor) -> int:
    return int((scores > -INF).sum())


@contextmanager
def cramped(**more: Any) -> Iterator[None]:
    """Tiny chunks, samples and room, so that a few scores meet every branch of the kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "_chunk_size", lambda tensor: 7)
        for name, value in {"_SMALL": 2, "_SAMPLE": 5, "_SPREADS": 0.1, **more}.items():
            patch.setattr(topk, name, value)
        yield


def check(scores: Sequence[Tensor], k: int) -> None:
    joined = torch.cat([tensor.reshape(-1) for tensor in scores])
    expected = oracle(joined, k)
    got = largest(joined, k)
    assert got.dtype == torch.bool
    assert torch.equal(got, expected)
    sizes = [tensor.numel() for tensor in scores]
    assert count_largest(scores, k) == [int(part.sum()) for part in expected.split(sizes)]


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(LISTS, min_size=1, max_size=5), data=st.data())
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_stable_sort(dtype: torch.dtype, pieces: list[list[float]], data: Any) -> None:
    scores = [torch.tensor(piece, dtype=dtype) for piece in pieces]
    k = data.draw(st.integers(0, sum(map(selectable, scores))))
    check(scores, k)
    with cramped():
        check(scores, k)
    with cramped(_native=lambda values: values):  # the branch for accelerators
        check(scores, k)


@settings(max_examples=150, deadline=None)
@given(
    values=LISTS.filter(len),
    ends=st.tuples(NUMBERS, NUMBERS).map(sorted),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    data=st.data(),
)
def test_any_bracket_gives_the_exact_answer(
    values: list[float], ends: list[float], dtype: torch.dtype, data: Any
) -> None:
    scores = torch.tensor(values, dtype=dtype)
    k = data.draw(st.integers(0, selectable(scores)))
    surveys = 0
    survey = topk._survey

    def counted(*args: Any) -> Any:
        nonlocal surveys
        surveys += 1
        return survey(*args)

    with cramped(_bracket=lambda *_: tuple(ends), _survey=counted):
        assert torch.equal(largest(scores, k), oracle(scores, k))
    assert surveys <= 70


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), shape=st.tuples(*[st.integers(0, 5)] * 4), data=st.data())
def test_flat_index_is_logical_order(seed: int, shape: tuple[int, ...], data: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    plain = torch.randint(-2, 3, shape, generator=generator).float()
    last = plain.to(memory_format=torch.channels_last)
    wide = torch.zeros(*shape[:-1], 2 * shape[-1])
    wide[..., ::2] = plain
    turned = plain.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    k = data.draw(st.integers(0, plain.numel()))
    expected = oracle(plain, k)
    for same in (plain, last, wide[..., ::2], turned):
        assert torch.equal(largest(same, k), expected)
        with cramped():
            assert torch.equal(largest(same, k), expected)
            halves = [same[:2], same[2:]]
            assert count_largest(halves, k) == [int(expected[:2].sum()), int(expected[2:].sum())]


def distribution(name: str, numel: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(numel, generator=generator)
    if name == "normal":
        return normal.abs()
    if name == "ascending":
        return torch.arange(numel).float()
    if name == "equal":
        return torch.full((numel,), 0.25)
    if name == "zeros":
        return (normal.abs() - 1.96).clamp(min=0)
    if name == "quantised":
        return (8 * normal).round() / 8
    if name == "pruned":
        return torch.where(torch.rand(numel, generator=generator) < 0.9, -INF, normal)
    if name == "periodic":  # 1155 = 3 * 5 * 7 * 11
        return normal + 1e3 * (torch.arange(numel) % 1155 == 0)
    assert name == "two scales"
    return torch.where(torch.arange(numel) < numel // 3, 1e-20, 1e20) * normal


@pytest.mark.parametrize(
    "name",
    ["normal", "ascending", "equal", "zeros", "quantised", "pruned", "periodic", "two scales"],
)
def test_large_inputs(name: str) -> None:
    numel = topk._SMALL * 4
    flat = distribution(name, numel)
    limit = selectable(flat)
    pieces = list(flat.split([numel // 2, 1, 0, numel // 3, numel - numel // 2 - numel // 3 - 1]))
    for k in {1, limit // 20, limit // 2, limit - 1, limit}:
        check(pieces, k)


def test_sample_that_hides_the_large_scores_still_gives_the_exact_answer() -> None:
    numel = topk._SMALL * 4
    k = numel // 10
    where = torch.arange(numel, dtype=torch.float64)
    read: list[Tensor] = []
    kth = topk._kth

    def spied(pieces: Sequence[Tensor], k: int) -> float:
        read.extend(pieces)
        return kth(pieces, k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "_kth", spied)
        topk._bracket([where], k, numel)
    seen = read[0].long()
    assert 0 < len(seen) < numel // 50
    scores = 3 + where.float() / numel
    scores[seen] = torch.linspace(0, 1, len(seen))
    low, high = topk._bracket([scores], k, numel)
    assert int((scores >= high).sum()) > k  # the bracket has been fooled
    assert low < high
    check([scores], k)


def test_dtypes_are_compared_by_value() -> None:
    just_above = torch.tensor([1.0 + 2**-20], dtype=torch.float32)
    half = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    double = torch.tensor([1.0 + 2**-40], dtype=torch.float64)
    assert count_largest([half, just_above, double], 2) == [1, 1, 0]
    assert count_largest([half, just_above, double], 3) == [1, 1, 1]


def test_ties_go_to_the_first_tensors() -> None:
    equal = [torch.ones(3), torch.ones(0), torch.ones(2, 2), torch.ones(())]
    assert count_largest(equal, 5) == [3, 0, 2, 0]
    assert count_largest(equal, 8) == [3, 0, 4, 1]
    assert largest(torch.zeros(2, 3), 4).tolist() == [[True] * 3, [True, False, False]]


def test_nothing_to_select() -> None:
    assert count_largest([], 0) == []
    assert count_largest([torch.full((3,), -INF), torch.ones(2)], 0) == [0, 0]
    assert largest(torch.empty(0, 4), 0).shape == (0, 4)
    assert not largest(torch.full((5,), -INF), 0).any()


def test_scores_of_a_parameter_stay_untouched() -> None:
    scores = torch.nn.Parameter(torch.tensor([[1.0, 3.0], [2.0, -INF]]))
    before = scores.detach().clone()
    keep = largest(scores, 2)
    assert keep.tolist() == [[False, True], [True, False]]
    assert not keep.requires_grad
    assert torch.equal(scores.detach(), before)


@pytest.mark.parametrize("k", [-1, 3, 5, 6])
def test_out_of_range(k: int) -> None:
    scores = torch.tensor([1.0, -INF, INF, -INF, -INF])
    message = rf"cannot select {k} scores: 2 are selectable"
    for patch in (cramped, lambda: pytest.MonkeyPatch.context()):
        with patch():
            with pytest.raises(RegrowError, match=message):
                largest(scores, k)
            with pytest.raises(RegrowError, match=message):
                count_largest([scores[:2], scores[2:]], k)


def test_nothing_selectable_in_no_tensors() -> None:
    with pytest.raises(RegrowError, match="cannot select 1 scores: 0 are selectable"):
        count_largest([], 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [0, 2])
def test_nan(dtype: torch.dtype, k: int) -> None:
    bad = torch.tensor([[math.nan, 1.0, INF], [-INF, math.nan, 2.0]], dtype=dtype)
    with pytest.raises(RegrowError, match=r"2 of 6 scores of tensor 1 \(shape \(2, 3\)\) are NaN"):
        count_largest([torch.ones(4, dtype=dtype), bad], k)
    with pytest.raises(RegrowError, match="2 of 6 scores of tensor 0"):
        largest(bad, k)


def test_integer_scores() -> None:
    with pytest.raises(RegrowError, match=r"tensor 1 .* are torch.int64; convert"):
        count_largest([torch.ones(2), torch.ones(2, dtype=torch.int64)], 1)


def test_same_result_with_any_number_of_threads() -> None:
    scores = distribution("quantised", topk._SMALL * 8)
    k = scores.numel() // 7
    threads = torch.get_num_threads()
    try:
        masks = []
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            masks.append(largest(scores, k))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(masks[0], oracle(scores, k))
    assert all(torch.equal(mask, masks[0]) for mask in masks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@pytest.mark.parametrize("name", ["normal", "zeros", "pruned"])
def test_accelerator_agrees_with_cpu(name: str) -> None:
    scores = distribution(name, topk._SMALL * 4)
    k = selectable(scores) // 3
    pieces = [scores[:1000].cuda(), scores[1000:].cuda()]
    assert torch.equal(largest(scores.cuda(), k).cpu(), oracle(scores, k))
    assert count_largest(pieces, k) == count_largest([piece.cpu() for piece in pieces], k)
