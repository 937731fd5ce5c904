"""Patterns against loops."""

from __future__ import annotations

import math
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.topk import largest
from regrow.parts.patterns.block import Block
from regrow.parts.patterns.element import Element
from regrow.parts.patterns.nm import NofM

INF = math.inf


def draw(shape: tuple[int, ...], seed: int, values: int = 0) -> Tensor:
    """Scores; with `values` few distinct ones, so that ties abound."""
    generator = torch.Generator().manual_seed(seed)
    if values:
        return torch.randint(values, shape, generator=generator).float()
    return torch.rand(shape, generator=generator)


def groups_of(mask: Tensor, m: int) -> Tensor:
    """(groups, m): m consecutive inputs of an output and kernel position, by explicit loops."""
    out, inputs = mask.shape[:2]
    flat = mask.reshape(out, inputs, -1)
    return torch.stack(
        [
            torch.stack([flat[o, i + j, k] for j in range(m)])
            for o in range(out)
            for k in range(flat.shape[2])
            for i in range(0, inputs, m)
        ]
    )


def test_element_is_the_identity() -> None:
    scores = draw((3, 2, 2, 2), 0)
    part = Element()
    part.check("w", (3, 2, 2, 2))
    assert (part.size(scores.shape), part.capacity(scores.shape)) == (1, 24)
    keep = largest(part.pool(scores), 5)
    mask = part.expand(keep, tuple(scores.shape))
    assert mask.shape == scores.shape
    assert scores[mask].min() > scores[~mask].max()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (2, 2)]),
    st.sampled_from([(), (3, 3), (1, 2)]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0, 2, 3]),
    st.data(),
)
def test_n_of_m(
    nm: tuple[int, int],
    kernel: tuple[int, ...],
    out: int,
    groups: int,
    values: int,
    data: st.DataObject,
) -> None:
    n, m = nm
    shape = (out, groups * m, *kernel)
    part, scores = NofM(n, m), draw(shape, 1, values)
    part.check("w", shape)
    full = part.capacity(shape)
    assert full == prod(shape) * n // m
    pooled = part.pool(scores)
    assert int((pooled > -INF).sum()) == full
    # Exactly n of every m at density n/m, ties or not, and they are n of the best.
    mask = part.expand(largest(pooled, full), shape)
    for kept, values_of in zip(groups_of(mask, m), groups_of(scores, m), strict=True):
        assert int(kept.sum()) == n
        assert sorted(values_of[kept].tolist()) == sorted(values_of.tolist())[m - n :]
    # Below it at most n, and the total is exact.
    count = data.draw(st.integers(0, full))
    fewer = part.expand(largest(pooled, count), shape)
    assert int(fewer.sum()) == count
    assert not (fewer & ~mask).any()
    with pytest.raises(RegrowError, match="selectable"):
        largest(pooled, full + 1)


def test_n_of_m_breaks_ties_towards_the_lower_input() -> None:
    mask = NofM(2, 4).pool(torch.ones(2, 8)) > -INF
    assert mask.view(2, 8).tolist() == [[True, True, False, False] * 2] * 2


def test_n_of_m_never_allows_what_is_removed_already() -> None:
    scores = torch.tensor([[1.0, -INF, -INF, -INF, 3.0, 2.0, 4.0, 1.0]])
    assert NofM(2, 4).pool(scores).tolist() == [1.0, -INF, -INF, -INF, 3.0, -INF, 4.0, -INF]


def test_n_of_m_refuses_what_does_not_fit() -> None:
    with pytest.raises(RegrowError, match=r"conv\.weight.*6 inputs.*multiple of 4"):
        NofM(2, 4).check("conv.weight", (8, 6, 3, 3))
    for n, m in ((0, 4), (5, 4), (-1, 2)):
        with pytest.raises(RegrowError, match=f"{n}:{m}"):
            NofM(n, m)


def tiles(shape: tuple[int, ...], rows: int, columns: int) -> list[list[tuple[int, int]]]:
    """The (row, column) cells of each tile of the (out, rest) matrix, in row-major tile order."""
    height, width = shape[0], prod(shape[1:])
    rows, columns = rows or height, columns or width
    return [
        [(r + i, c + j) for i in range(rows) for j in range(columns)]
        for r in range(0, height, rows)
        for c in range(0, width, columns)
    ]


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([0, 1, 2, 4]),
    st.sampled_from([0, 1, 3, 9]),
    st.sampled_from([(4, 9), (8, 1, 3, 3), (4, 2, 9)]),
    st.integers(0, 99),
)
def test_block_equals_loops(rows: int, columns: int, shape: tuple[int, ...], seed: int) -> None:
    part, scores = Block(rows, columns), draw(shape, seed)
    scores = scores.masked_fill(draw(shape, seed + 1) < 0.2, -INF)
    scores = scores.masked_fill(draw(shape, seed + 2) < 0.02, INF)
    part.check("w", shape)
    cells = tiles(shape, rows, columns)
    matrix = scores.view(shape[0], -1)
    assert part.size(shape) == len(cells[0])
    assert part.capacity(shape) == len(cells)
    expected = []
    for tile in cells:
        values = [float(matrix[cell]) for cell in tile]
        finite = [v for v in values if math.isfinite(v)]
        mean = sum(finite) / len(finite) if finite else -INF
        expected.append(INF if INF in values else mean)
    torch.testing.assert_close(part.pool(scores), torch.tensor(expected).double())
    # expand is the indicator of the tiles kept, and pooling it gives the choice back.
    keep = torch.arange(len(cells)) % 3 != 1
    mask = part.expand(keep, shape)
    assert mask.shape == shape
    for kept, tile in zip(keep.tolist(), cells, strict=True):
        assert all(bool(mask.view(shape[0], -1)[cell]) == kept for cell in tile)
    assert torch.equal(part.pool(mask.float()) == 1, keep)


def test_rows_and_columns_by_hand() -> None:
    scores = torch.arange(6.0).view(2, 3)
    assert Block(1, 0).pool(scores).tolist() == [1.0, 4.0]
    assert Block(0, 1).pool(scores).tolist() == [1.5, 2.5, 3.5]
    assert Block(0, 0).pool(scores).tolist() == [2.5]
    mask = Block(0, 1).expand(torch.tensor([True, False, True]), (2, 3))
    assert mask.tolist() == [[True, False, True]] * 2


def test_the_mean_of_a_wide_half_precision_block_does_not_overflow() -> None:
    scores = torch.full((2, 4096), 60.0).half()
    assert Block(1, 0).pool(scores).tolist() == [60.0, 60.0]


def test_a_block_refuses_what_does_not_fit() -> None:
    with pytest.raises(RegrowError, match=r"fc\.weight as a 6 x 10 matrix"):
        Block(4, 1).check("fc.weight", (6, 10))
    with pytest.raises(RegrowError, match="6 x 10"):
        Block(2, 4).check("fc.weight", (6, 10))
    with pytest.raises(RegrowError, match="-1 x 1"):
        Block(-1, 1)
