"""The inverse Fisher against the dense matrix, the paper's recursion, and its own estimate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import profile

from regrow.core.blocks import to_blocks
from regrow.core.errors import RegrowError
from regrow.core.evidence import InverseFisher
from regrow.model.fisher import LARGEST, chunk_for, fisher_bytes, invert, outer_products
from regrow.model.inventory import inventory, weights_of

DAMPING = 1e-3


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """21 + 12 weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 4)).to(dtype)


def data(count: int, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(5, 7, generator=source, dtype=torch.float64).to(dtype),
            torch.randint(0, 4, (5,), generator=source),
        )
        for _ in range(count)
    ]


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def each(model: nn.Module, count: int) -> dict[str, Tensor]:
    """Gradients by weight, (count, entries), from plain backward passes."""
    rows: dict[str, list[Tensor]] = {"0.weight": [], "2.weight": []}
    for batch in data(count):
        model.zero_grad()
        loss_fn(model, batch).backward()
        for name, kept in rows.items():
            grad = model.get_parameter(name).grad
            assert grad is not None
            kept.append(grad.flatten().clone())
    return {name: torch.stack(kept) for name, kept in rows.items()}


def ours(
    model: nn.Module, count: int, chunk: int, masks: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    weights = weights_of(model, inventory(model))
    sums, found = outer_products(model, weights, loss_fn, data(count), chunk, masks)
    assert found == count
    invert(sums, count, DAMPING)
    return sums


def recursion(rows: Tensor, damping: float) -> Tensor:
    """F_0^-1 = I / lambda; F_n^-1 = F^-1 - v v^T / (N + g^T v), v = F^-1 g (as published)."""
    inverse = torch.eye(rows.shape[1], dtype=rows.dtype) / damping
    for row in rows:
        v = inverse @ row
        inverse = inverse - torch.outer(v, v) / (len(rows) + row @ v)
    return inverse


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 19), st.integers(1, 40))
def test_blocks_equal_the_dense_inverse_and_the_recursion(count: int, chunk: int) -> None:
    model = network()
    found, rows = ours(model, count, chunk), each(model, count)
    for name, blocks in found.items():
        size = blocks.shape[-1]
        for number, part in enumerate(rows[name].split(size, dim=1)):
            width = part.shape[1]
            dense = part.T @ part / count + DAMPING * torch.eye(width, dtype=torch.float64)
            block = blocks[number, :width, :width]
            torch.testing.assert_close(block, torch.linalg.inv(dense), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(block, recursion(part, DAMPING), rtol=1e-6, atol=1e-6)
            assert not blocks[number, :width, width:].any()  # what fills up the last block


def test_single_precision_sums_are_close() -> None:
    model = network(torch.float32)
    weights = weights_of(model, inventory(model))
    sums, count = outer_products(model, weights, loss_fn, data(9, torch.float32), 8)
    invert(sums, count, DAMPING)
    for name, blocks in ours(network(), 9, 8).items():
        assert sums[name].dtype == torch.float32
        worst = (sums[name] - blocks).abs().max() / blocks.abs().max()
        assert worst < 1e-4, name


def test_removed_entries_stay_out() -> None:
    """Among the living it is the inverse of their own Fisher; the removed have 1 / lambda."""
    model = network()
    masks = {n: torch.rand(w.shape) < 0.5 for n, w in weights_of(model, inventory(model)).items()}
    found, rows = ours(model, 11, 6, masks), each(model, 11)
    for name, blocks in found.items():
        alive = to_blocks(masks[name], 6)
        for number, part in enumerate(rows[name].split(6, dim=1)):
            keep = alive[number]
            living = part[:, keep[: part.shape[1]]]
            dense = living.T @ living / 11 + DAMPING * torch.eye(living.shape[1]).double()
            block = blocks[number]
            torch.testing.assert_close(block[keep][:, keep], torch.linalg.inv(dense))
            gone = torch.eye(int((~keep).sum())).double() / DAMPING
            torch.testing.assert_close(block[~keep][:, ~keep], gone)
            assert not block[keep][:, ~keep].any()


def test_statistics_and_gradients_of_the_network_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4)).double().train()
    model[0].weight.grad = torch.ones(4, 7).double()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    weights = weights_of(model, inventory(model))
    outer_products(model, weights, loss_fn, data(3), 8, statistics="batch")
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model[0].weight.grad.eq(1).all()
    assert model.training


def test_large_gradients_do_not_lose_the_damping_in_their_rounding() -> None:
    rows = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)) * 1e3
    sums = {"w": (rows.T @ rows).unsqueeze(0)}
    invert(sums, 3, 1e-5)
    assert torch.isfinite(sums["w"]).all()
    assert (sums["w"].diagonal(dim1=1, dim2=2) > 0).all()


def test_what_cannot_be_inverted_is_refused() -> None:
    for broken in (-torch.eye(4), torch.full((4, 4), math.nan)):
        with pytest.raises(RegrowError, match=r"fc\.weight: the empirical Fisher.*raise the damp"):
            invert({"fc.weight": broken.unsqueeze(0)}, 1, 1e-5)


@pytest.mark.parametrize(("chunk", "wide"), [(16, False), (256, False), (128, True)])
def test_the_estimate_is_what_is_allocated(chunk: int, wide: bool) -> None:
    """Peak of the allocator's own record, less what one gradient of the network takes."""
    dtype = torch.float64 if wide else torch.float32
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 300), nn.Linear(300, 401), nn.Linear(401, 4)).to(dtype)
    entries = inventory(model)
    batches, weights = data(9, dtype), weights_of(model, entries)
    with profile(profile_memory=True) as seen:
        sums, count = outer_products(model, weights, loss_fn, batches, chunk)
        invert(sums, count, 1e-3)
    held = peak = 0
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    sizes = [entry.numel for entry in entries]
    network = 4 * sum(sizes) * dtype.itemsize
    estimate = fisher_bytes(sizes, chunk, dtype.itemsize)
    assert 0.9 * estimate < peak < 1.02 * estimate + network


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 0.1), st.sampled_from([4, 8]))
def test_the_largest_chunk_that_fits_is_chosen(memory: float, width: int) -> None:
    entries = inventory(nn.Sequential(nn.Linear(100, 300), nn.Linear(300, 10)))
    sizes = [entry.numel for entry in entries]
    try:
        chunk = chunk_for(entries, InverseFisher(memory_gib=memory), width)
    except RegrowError:
        assert fisher_bytes(sizes, 1, width) > memory * 2**30
        return
    assert fisher_bytes(sizes, chunk, width) <= memory * 2**30
    assert chunk == LARGEST or fisher_bytes(sizes, 2 * chunk, width) > memory * 2**30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_gib": 1e-6}, r"in blocks of 1 takes .* GiB, more than memory_gib=1e-06; raise"),
        ({"chunk": 64, "memory_gib": 1e-3}, "blocks of 64 takes .*, or lower chunk"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    entries = inventory(nn.Sequential(nn.Linear(100, 300), nn.Linear(300, 10)))
    with pytest.raises(RegrowError, match=message):
        chunk_for(entries, InverseFisher(**options))


def test_vgg16_fits_in_four_gib_by_default() -> None:
    from regrow.bench.models import vgg16_bn

    with torch.device("meta"):
        entries = inventory(vgg16_bn(10))
    assert chunk_for(entries, InverseFisher()) == 64
