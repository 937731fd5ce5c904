"""The surgeon's update against brute force and the conditions of a constrained minimum."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.core.blocks import from_blocks, layout, to_blocks
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.parts.criteria.woodfisher import WoodFisher
from regrow.parts.repair.surgeon import Surgeon

SEEDS = st.integers(0, 2**31)


def problem(seed: int, size: int, gradients: int = 40) -> tuple[Tensor, Tensor]:
    """A damped Fisher (size, size) and weights, in float64."""
    source = torch.Generator().manual_seed(seed)
    rows = torch.randn(gradients, size, generator=source, dtype=torch.float64)
    fisher = rows.T @ rows / gradients + 1e-3 * torch.eye(size, dtype=torch.float64)
    return fisher, torch.randn(size, generator=source, dtype=torch.float64)


def evidence(fisher: Tensor, weight: Tensor) -> Evidence:
    """One weight "w" that is one block."""
    (need,) = WoodFisher().needs - {Need("weight")}
    inverse = torch.linalg.inv(fisher).unsqueeze(0)
    return Evidence({Need("weight"): {"w": weight}, need: {"w": inverse}})


def moved(fisher: Tensor, weight: Tensor, cut: Tensor, **options: Any) -> Tensor:
    """What the weights differ by after the cut: the repair, and -w where they are removed."""
    before = {"w": torch.ones_like(cut)}
    delta = Surgeon(**options).delta(evidence(fisher, weight), before, {"w": ~cut})["w"]
    assert not delta[cut].any()
    return torch.where(cut, -weight, delta)


def cost(fisher: Tensor, change: Tensor) -> float:
    return float(0.5 * change @ fisher @ change)


def minimiser(fisher: Tensor, weight: Tensor, cut: Tensor) -> Tensor:
    """Least cost with -w at what is cut, by eliminating it instead of by the inverse."""
    keep = ~cut
    free = torch.linalg.solve(fisher[keep][:, keep], fisher[keep][:, cut] @ weight[cut])
    change = -weight * cut
    change[keep] = free
    return change


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(2, 9))
def test_one_weight_equals_the_best_of_all(seed: int, size: int) -> None:
    """Statistic, choice and update of a single cut against exact minimisation over each."""
    fisher, weight = problem(seed, size)
    scores = WoodFisher().score(evidence(fisher, weight))["w"]
    costs = []
    for q in range(size):
        cut = torch.arange(size) == q
        change = minimiser(fisher, weight, cut)
        costs.append(cost(fisher, change))
        for joint in (False, True):
            ours = moved(fisher, weight, cut, joint=joint)
            torch.testing.assert_close(ours, change, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(scores / 2, torch.tensor(costs).double(), rtol=1e-7, atol=1e-12)
    assert int(scores.argmin()) == min(range(size), key=costs.__getitem__)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(2, 9), st.data())
def test_the_joint_update_meets_the_conditions_of_the_minimum(
    seed: int, size: int, data: st.DataObject
) -> None:
    fisher, weight = problem(seed, size)
    cut = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    change = moved(fisher, weight, cut, joint=True)
    torch.testing.assert_close((fisher @ change)[~cut], torch.zeros(int((~cut).sum())).double())
    assert torch.equal(change[cut], -weight[cut])


def test_joint_is_below_the_sum_and_the_sum_below_nothing() -> None:
    """On the mean over problems of mild correlation, a Fisher of 20 gradients each."""
    totals = dict.fromkeys(("none", "single", "joint"), 0.0)
    for seed in range(40):
        fisher, weight = problem(seed, 12, 20)
        scores = WoodFisher().score(evidence(fisher, weight))["w"]
        cut = torch.zeros(12, dtype=torch.bool)
        cut[scores.argsort()[:3]] = True
        changes = {
            "none": moved(fisher, weight, cut, scale=0.0),
            "single": moved(fisher, weight, cut),
            "joint": moved(fisher, weight, cut, joint=True),
        }
        assert torch.equal(changes["none"], -weight * cut)
        for name, change in changes.items():
            totals[name] += cost(fisher, change)
        least = cost(fisher, changes["joint"])
        assert all(least <= cost(fisher, c) + 1e-9 for c in changes.values())
    assert totals["none"] > totals["single"] > totals["joint"]


def test_the_scale_is_a_factor() -> None:
    fisher, weight = problem(3, 7)
    cut = torch.arange(7) < 2
    whole, half = moved(fisher, weight, cut), moved(fisher, weight, cut, scale=0.5)
    torch.testing.assert_close(half[~cut], whole[~cut] / 2)


def test_blocks_of_a_weight_are_repaired_apart() -> None:
    """A weight of 7 entries in blocks of 3: the last reaches beyond it."""
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(7, generator=source, dtype=torch.float64)
    inverse = torch.stack([torch.linalg.inv(problem(seed, 3)[0]) for seed in range(3)])
    cut = torch.tensor([1, 0, 0, 0, 1, 1, 0]).bool()
    for joint in (False, True):
        part = Surgeon(joint=joint)
        (need,) = part.needs - {Need("weight")}
        found = Evidence({Need("weight"): {"w": weight}, need: {"w": inverse}})
        delta = part.delta(found, {"w": torch.ones(7).bool()}, {"w": ~cut})["w"]
        assert not delta[cut].any()
        assert delta[6] == 0  # nothing is cut in its block
        for first, last in ((0, 3), (3, 6)):
            fisher = torch.linalg.inv(inverse[first // 3])
            whole = moved(fisher, weight[first:last], cut[first:last], joint=joint)
            torch.testing.assert_close(delta[first:last][~cut[first:last]], whole[~cut[first:last]])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70))
def test_blocks_hold_every_entry_once(numel: int, chunk: int) -> None:
    tensor = torch.arange(1, numel + 1).view(1, numel)
    count, size = layout(numel, chunk)
    blocks = to_blocks(tensor, size)
    assert blocks.shape == (count, size)
    assert int((blocks == 0).sum()) == count * size - numel < size <= chunk
    assert torch.equal(from_blocks(blocks, (1, numel)), tensor)


def test_a_broken_inverse_is_refused() -> None:
    broken = {"w": -torch.eye(3).unsqueeze(0)}
    part = Surgeon(joint=True)
    (need,) = part.needs - {Need("weight")}
    found = Evidence({Need("weight"): {"w": torch.ones(3)}, need: broken})
    masks = {"w": torch.ones(3).bool()}, {"w": torch.tensor([True, False, False])}
    with pytest.raises(RegrowError, match="w: the inverse Fisher of what is cut"):
        part.delta(found, *masks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradients": 0}, "gradients=0 is a count"),
        ({"gradients": True}, "gradients=True is a count"),
        ({"chunk": 2.5}, "chunk=2.5 is a count"),
        ({"damping": 0.0}, "damping=0.0 must be above 0"),
        ({"damping": float("nan")}, "damping=nan must be above 0"),
        ({"memory_gib": -1}, "memory_gib=-1 must be above 0"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    for make, few in itertools.product((WoodFisher, Surgeon), (options,)):
        with pytest.raises(RegrowError, match=message):
            make(**few)
    with pytest.raises(RegrowError, match=r"scale=-1\.0 multiplies"):
        Surgeon(scale=-1.0)
