"""One regrowth: nothing is lost, exactly K return, and only where they may."""

from __future__ import annotations

import pytest
import torch
from event_example import (
    evidence_of,
    inventories,
    inventory_of,
    kept,
    masked,
    ones,
    plan_with,
    regrowing,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.engine.event import decide
from regrow.engine.plan import Plan
from regrow.engine.regrowth import Regrowth
from regrow.model.inventory import Inventory
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.patterns.block import Block
from regrow.parts.patterns.nm import NofM
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.schedule.one_shot import OneShot

RULE = st.sampled_from([row.name for row in RULES])
ALLOCATION = st.sampled_from(["global", "uniform", "erk", "ssim_fill", "ssim_proportional"])
FOUR = inventory_of((4, 4), (4, 4), (4, 4), (4, 4))


def sparse(entries: Inventory, each: int) -> dict[str, Tensor]:
    """Masks that keep the first `each` entries of every layer."""
    return {e.name: (torch.arange(e.numel) < each).view(e.shape) for e in entries}


def alive(masks: dict[str, Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


@settings(max_examples=60, deadline=None)
@given(inventories(), RULE, ALLOCATION, st.floats(0, 0.95), st.integers(0, 9), st.data())
def test_exactly_k_return_and_nothing_is_lost(
    entries, rule: str, allocation: str, sparsity: float, seed: int, data: st.DataObject
) -> None:  # type: ignore[no-untyped-def]
    masks = data.draw(masked(entries, least=0))
    wanted = round((1 - sparsity) * entries.total)
    assume(wanted > alive(masks))
    plan = regrowing(rule, allocation=ALLOCATIONS.build(allocation))
    evidence = evidence_of(entries, masks, seed)
    decision = decide(plan, entries, masks, 1 - sparsity, evidence)
    assert kept(decision) == wanted
    assert decision.delta is None  # The value is zero: weights stand at zero already.
    assert all(not (masks[n] & ~mask).any() for n, mask in decision.keep.items())
    again = decide(plan, entries, masks, 1 - sparsity, evidence)
    assert all(torch.equal(decision.keep[n], again.keep[n]) for n in decision.keep)


def test_global_saliency_returns_the_best_of_all_removed() -> None:
    entries = inventory_of((4, 4, 3, 3), (8, 12))
    masks = sparse(entries, 20)
    evidence = evidence_of(entries, masks)
    decision = decide(regrowing(), entries, masks, 0.5, evidence)
    scores = {
        n: evidence[Need("weight", "dense")][n] ** 2 * g
        for n, g in evidence[Need("gradient_square", "dense")].items()
    }
    returned = {n: mask & ~masks[n] for n, mask in decision.keep.items()}
    assert alive(returned) == 120 - 40
    least = min(float(scores[n][r].min()) for n, r in returned.items())
    assert least > max(float(scores[n][~decision.keep[n]].max()) for n in scores)


@pytest.mark.parametrize("name", [row.name for row in VALUES if row.name != "zero"])
def test_values_go_to_returned_entries_and_nowhere_else(name: str) -> None:
    entries = inventory_of((4, 4, 3, 3), (8, 12))
    masks = sparse(entries, 20)
    evidence = evidence_of(entries, masks)
    value = VALUES.build(name)
    decision = decide(regrowing(value=value), entries, masks, 0.5, evidence)
    assert decision.delta is not None
    for entry in entries:
        returned = decision.keep[entry.name] & ~masks[entry.name]
        wanted = value.values(entry, evidence)
        assert wanted is not None
        delta = decision.delta[entry.name]
        assert torch.equal(delta[returned], wanted[returned])
        assert not delta[~returned].any()
        assert delta[returned].all()


def test_only_named_layers_get_weights_back() -> None:
    masks = sparse(FOUR, 2)
    evidence = evidence_of(FOUR, masks)
    plan = regrowing("random", layers=("l1", "l3.weight"))
    decision = decide(plan, FOUR, masks, 0.5, evidence)
    grown = [int((m & ~masks[n]).sum()) for n, m in decision.keep.items()]
    assert grown[0] == grown[2] == 0
    assert grown[1] + grown[3] == 32 - 8
    with pytest.raises(RegrowError, match="more than the 36 that can be kept"):
        decide(plan, FOUR, masks, 0.75, evidence)
    with pytest.raises(RegrowError, match="unknown layer 'l9'"):
        decide(regrowing(layers=("l9",)), FOUR, masks, 0.5, evidence)


@pytest.mark.parametrize(
    ("below", "density", "candidates"),
    [
        (0.5, 0.3, {1, 2}),  # those below the threshold
        (0.0, 0.2, {2}),  # none is: the single worst
        (0.0, 0.5, {2, 1}),  # the worst alone has too little room: the next worst joins
        (0.5, 0.75, {1, 2, 3}),  # so have both below the threshold
        (0.95, 0.2, {0, 1, 2, 3}),
        (None, 0.2, {0, 1, 2, 3}),
    ],
)
def test_damaged_layers_get_weights_back(
    below: float | None, density: float, candidates: set[int]
) -> None:
    masks = sparse(FOUR, 2)
    damage = {"l0.weight": 0.9, "l1.weight": 0.3, "l2.weight": 0.1, "l3.weight": 0.6}
    grown: set[int] = set()
    for seed in range(6):
        evidence = evidence_of(FOUR, masks, seed, damage)
        decision = decide(regrowing("random", ssim_below=below), FOUR, masks, density, evidence)
        assert kept(decision) == round(64 * density)
        grown |= {i for i, (n, m) in enumerate(decision.keep.items()) if (m & ~masks[n]).any()}
    assert grown == candidates


def test_the_worst_is_sought_among_the_named_layers() -> None:
    masks = sparse(FOUR, 2)
    damage = {"l0.weight": 0.9, "l1.weight": 0.3, "l2.weight": 0.1, "l3.weight": 0.6}
    plan = regrowing(layers=("l0", "l3"), ssim_below=0.0)
    decision = decide(plan, FOUR, masks, 0.2, evidence_of(FOUR, masks, 0, damage))
    assert [int((m & ~masks[n]).sum()) for n, m in decision.keep.items()] == [0, 0, 0, 5]


def test_damaged_layers_of_blocks_have_the_room_that_rounding_asks_for() -> None:
    """25 weights are 6 tiles of 4, and 27 are 7: more than 27 weights hold."""
    entries = inventory_of((4, 4), (4, 4))
    masks = {e.name: torch.zeros(4, 4, dtype=torch.bool) for e in entries}
    masks["l0.weight"][:, :1] = True
    masks["l1.weight"][:, :2] = True
    damage = {"l0.weight": 0.1, "l1.weight": 0.9}
    plan = Plan(
        OneShot(0.5), pattern=Block(4, 1), regrowth=Regrowth(RULES.build("random"), ssim_below=0.5)
    )
    for seed in range(6):  # The draw may put the other layer first, but it is no candidate.
        evidence = evidence_of(entries, masks, seed, damage)
        six, seven = (decide(plan, entries, masks, w / 32, evidence).keep for w in (25, 27))
        assert [int(mask.sum()) for mask in six.values()] == [16, 8]
        assert sum(int(mask.sum()) for mask in seven.values()) == 28


def test_units_of_unlike_sizes_return_up_to_the_target_or_are_refused() -> None:
    entries = inventory_of((4, 8), (4, 4))
    masks = {e.name: torch.zeros(e.shape, dtype=torch.bool) for e in entries}
    for mask in masks.values():
        mask[0] = True
    rows = {"pattern": Block(1, 0)}
    grow = Regrowth(RULES.build("magnitude"))
    evidence = evidence_of(entries, masks)
    decision = decide(Plan(OneShot(0.5), regrowth=grow, **rows), entries, masks, 0.75, evidence)  # type: ignore[arg-type]
    assert 36 - 8 < kept(decision) <= 36
    only = Regrowth(RULES.build("magnitude"), layers=("l1",))
    with pytest.raises(RegrowError, match="more than the 5 that can be kept"):
        decide(Plan(OneShot(0.5), regrowth=only, **rows), entries, masks, 0.75, evidence)  # type: ignore[arg-type]


def test_unlike_sizes_and_damage_find_room_in_weights_not_units() -> None:
    """Rows of 8 and of 4: the worst layer's four rows hold too little for 44 of 48 weights."""
    entries = inventory_of((4, 8), (4, 4))
    masks = {e.name: torch.zeros(e.shape, dtype=torch.bool) for e in entries}
    damage = {"l0.weight": 0.9, "l1.weight": 0.1}
    plan = Plan(
        OneShot(0.5), pattern=Block(1, 0), regrowth=Regrowth(RULES.build("random"), ssim_below=0.5)
    )
    decision = decide(plan, entries, masks, 1.0, evidence_of(entries, masks, 0, damage))
    assert kept(decision) == 48


def test_regrowth_stays_inside_the_pattern() -> None:
    entries = inventory_of((4, 8, 3, 3), (8, 12))
    masks = ones(entries)
    plan = Plan(OneShot(0.5), pattern=NofM(2, 4), regrowth=Regrowth(RULES.build("random")))
    deep = decide(plan, entries, masks, 0.1, evidence_of(entries, masks))
    back = decide(plan, entries, deep.keep, 0.5, evidence_of(entries, dict(deep.keep)))
    assert kept(back) == round(0.5 * entries.total)
    for name, mask in back.keep.items():
        assert not (deep.keep[name] & ~mask).any()
        assert (mask.movedim(1, -1).reshape(-1, 4).sum(1) == 2).all()


def test_the_reference_rule_cannot_return_more_than_is_alive_there() -> None:
    entries = inventory_of((4, 4), (4, 4))
    masks = sparse(entries, 2)
    evidence = evidence_of(entries, masks)
    reference = evidence[Need("weight", "reference")]
    for name in reference:
        reference[name].mul_((torch.arange(16) % 2 == 0).view(4, 4))
    decision = decide(regrowing("reference"), entries, masks, 0.5, evidence)
    for name, mask in decision.keep.items():
        assert not ((mask & ~masks[name]) & (reference[name] == 0)).any()
    with pytest.raises(RegrowError, match="more than the 18 that can be kept"):
        decide(regrowing("reference"), entries, masks, 19 / 32, evidence)


def test_a_rising_target_needs_a_rule() -> None:
    masks = sparse(FOUR, 2)
    with pytest.raises(RegrowError, match=r"target density 0\.5 is above the present one.*name a"):
        decide(plan_with(), FOUR, masks, 0.5, evidence_of(FOUR, masks))


def test_a_nan_of_a_rule_names_its_layer() -> None:
    masks = sparse(FOUR, 2)
    evidence = evidence_of(FOUR, masks)
    evidence[Need("gradient")]["l2.weight"][0, 0] = torch.nan
    with pytest.raises(RegrowError, match=r"GradientMagnitude gives 1 NaN scores in l2\.weight"):
        decide(regrowing("gradient"), FOUR, masks, 0.5, evidence)


def test_an_empty_layer_can_come_back() -> None:
    masks = sparse(FOUR, 2) | {"l1.weight": torch.zeros(4, 4, dtype=torch.bool)}
    decision = decide(
        regrowing(allocation=ALLOCATIONS.build("ssim_fill"), layers=("l1",)),
        FOUR,
        masks,
        10 / 64,
        evidence_of(FOUR, masks),
    )
    assert int(decision.keep["l1.weight"].sum()) == 4
