"""One cut: exact counts, old masks obeyed, whatever the parts."""

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
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.engine.event import decide, feasible
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.criteria import CRITERIA
from regrow.parts.patterns import PATTERNS
from regrow.parts.patterns.block import Block
from regrow.parts.patterns.nm import NofM

CRITERION = st.sampled_from([row.name for row in CRITERIA])
# Budgets of one's own, and those that are learned for what returns only.
SHARES = [row.name for row in ALLOCATIONS if row.name not in ("explicit", "learned")]
ALLOCATION = st.sampled_from(SHARES)


@settings(max_examples=60, deadline=None)
@given(inventories(), CRITERION, ALLOCATION, st.floats(0, 0.97), st.integers(1, 2), st.data())
def test_a_cut_keeps_exactly_what_was_asked_for(
    entries, criterion: str, allocation: str, sparsity: float, floor: int, data: st.DataObject
) -> None:  # type: ignore[no-untyped-def]
    masks = data.draw(masked(entries, least=floor))
    wanted = round((1 - sparsity) * entries.total)
    assume(wanted <= sum(int(m.sum()) for m in masks.values()))
    plan = plan_with(
        criterion=CRITERIA.build(criterion), allocation=ALLOCATIONS.build(allocation), floor=floor
    )
    evidence = evidence_of(entries, masks)
    try:
        decision = decide(plan, entries, masks, 1 - sparsity, evidence)
    except RegrowError as error:
        assume("fewer than the" not in str(error) and "uniform_plus spares" not in str(error))
        raise
    assert kept(decision) == wanted
    assert decision.delta is None
    for entry in entries:
        mask, old = decision.keep[entry.name], masks[entry.name]
        assert mask.shape == entry.shape
        assert not (mask & ~old).any()
        assert int(mask.sum()) >= min(floor, int(old.sum()))
    again = decide(plan, entries, masks, 1 - sparsity, evidence)
    assert all(torch.equal(decision.keep[n], again.keep[n]) for n in decision.keep)


@pytest.mark.parametrize("criterion", [row.name for row in CRITERIA])
@pytest.mark.parametrize("allocation", SHARES)
def test_all_criteria_go_with_all_allocations(criterion: str, allocation: str) -> None:
    entries = inventory_of((4, 4, 3, 3), (8, 4, 3, 3), (16, 12), (10, 16))
    plan = plan_with(criterion=CRITERIA.build(criterion), allocation=ALLOCATIONS.build(allocation))
    masks = ones(entries)
    for sparsity in (0.3, 0.5, 0.62):
        feasible(plan, entries, 1 - sparsity)
        decision = decide(plan, entries, masks, 1 - sparsity, evidence_of(entries, masks))
        assert kept(decision) == round((1 - sparsity) * entries.total)
        masks = dict(decision.keep)


def test_global_magnitude_keeps_the_largest_of_all_layers() -> None:
    entries = inventory_of((4, 4, 3, 3), (8, 12), (12, 4))
    evidence = evidence_of(entries, ones(entries))
    decision = decide(plan_with(), entries, ones(entries), 0.3, evidence)
    weights = evidence[Need("weight")]
    least = min(float(weights[n].abs()[m].min()) for n, m in decision.keep.items())
    most = max(float(weights[n].abs()[~m].max()) for n, m in decision.keep.items())
    assert least > most


def test_layers_outside_the_scope_stay_whole_and_count() -> None:
    entries = inventory_of((4, 4, 3, 3), (8, 12), (12, 4))
    plan = plan_with(include=("l1", "l2.weight"), exclude=("l2",))
    masks = ones(entries)
    decision = decide(plan, entries, masks, 0.75, evidence_of(entries, masks))
    assert set(decision.keep) == {"l1.weight"}
    assert kept(decision) == round(0.75 * 288) - 144 - 48
    with pytest.raises(RegrowError, match=r"sparsity 0\.5 is out of reach.* 192 of 288 weights"):
        feasible(plan, entries, 0.5)
    with pytest.raises(RegrowError):
        decide(plan, entries, masks, 0.5, evidence_of(entries, masks))
    with pytest.raises(RegrowError, match="leave no layer"):
        decide(plan_with(exclude=("*",)), entries, masks, 0.5, evidence_of(entries, masks))
    with pytest.raises(RegrowError, match="unknown layer 'l7'"):
        decide(plan_with(exclude=("l7",)), entries, masks, 0.5, evidence_of(entries, masks))


def test_floors_hold_and_are_refused_when_they_cannot() -> None:
    entries = inventory_of((4, 4, 3, 3), (8, 12), (4, 4))
    masks = ones(entries)
    evidence = evidence_of(entries, masks)
    evidence.tensors[Need("weight")]["l2.weight"].mul_(1e-6)  # type: ignore[union-attr]
    for floor in (1, 5):
        decision = decide(plan_with(floor=floor), entries, masks, 0.1, evidence)
        assert int(decision.keep["l2.weight"].sum()) == floor
        assert kept(decision) == round(0.1 * entries.total)
    with pytest.raises(RegrowError, match="fewer than the 36 that the floors of the 3 layers"):
        decide(plan_with(floor=12), entries, masks, 0.1, evidence)
    with pytest.raises(RegrowError, match="floors"):
        feasible(plan_with(floor=12), entries, 0.1)


def test_a_layer_below_its_floor_already_keeps_what_it_has() -> None:
    entries = inventory_of((4, 4), (8, 12))
    masks = ones(entries)
    masks["l0.weight"] = torch.zeros(4, 4, dtype=torch.bool)
    masks["l0.weight"][0, 1] = True
    decision = decide(plan_with(floor=5), entries, masks, 0.2, evidence_of(entries, masks))
    assert torch.equal(decision.keep["l0.weight"], masks["l0.weight"])
    assert kept(decision) == round(0.2 * 112)


def test_a_nan_score_names_its_layer() -> None:
    entries = inventory_of((4, 4, 3, 3), (8, 12))
    evidence = evidence_of(entries, ones(entries))
    evidence[Need("gradient")]["l1.weight"][3, 3] = torch.nan
    plan = plan_with(criterion=CRITERIA.build("taylor"))
    with pytest.raises(
        RegrowError, match=r"Taylor gives 1 NaN scores in l1\.weight of .*\(8, 12\)"
    ):
        decide(plan, entries, ones(entries), 0.5, evidence)


def test_evidence_that_was_not_collected_is_named() -> None:
    entries = inventory_of((8, 12))
    with pytest.raises(RegrowError, match=r"'weight' of the current network .* not declared"):
        decide(plan_with(), entries, ones(entries), 0.5, Evidence({}))


@settings(max_examples=40, deadline=None)
@given(inventories(), ALLOCATION, st.floats(0.5, 0.9))
def test_n_of_m_is_exact_at_any_density_below_its_own(
    entries, allocation: str, sparsity: float
) -> None:  # type: ignore[no-untyped-def]
    plan = plan_with(pattern=NofM(2, 4), allocation=ALLOCATIONS.build(allocation))
    wanted = round((1 - sparsity) * entries.total)
    if allocation == "uniform_plus":
        assume(sparsity < 0.55)
    masks = ones(entries)
    try:
        feasible(plan, entries, 1 - sparsity)
    except RegrowError:
        assume(False)
    decision = decide(plan, entries, masks, 1 - sparsity, evidence_of(entries, masks))
    assert kept(decision) == wanted
    for mask in decision.keep.values():
        groups = mask.movedim(1, -1).reshape(-1, 4).sum(1)
        assert int(groups.max()) <= 2
        assert wanted * 2 < entries.total or (groups == 2).all()
    # A second cut stays inside the first and inside the pattern.
    again = evidence_of(entries, dict(decision.keep), 1)
    deeper = decide(plan_with(pattern=NofM(2, 4)), entries, decision.keep, 0.1, again)
    assert all(not (deeper.keep[n] & ~decision.keep[n]).any() for n in decision.keep)
    assert kept(deeper) == round(0.1 * entries.total)
    with pytest.raises(RegrowError, match="more than the"):
        feasible(plan, entries, 0.51 + 1 / entries.total)


@settings(max_examples=50, deadline=None)
@given(
    inventories(),
    st.sampled_from(["global", "ssim_fill", "uniform", "erk"]),
    st.sampled_from([Block(4, 1), Block(1, 0), Block(0, 1), Block(2, 4), Block(4, 4)]),
    st.floats(0, 0.8),
)
def test_blocks_are_met_to_the_unit(
    entries, allocation: str, pattern: Block, sparsity: float
) -> None:  # type: ignore[no-untyped-def]
    assume(all(e.shape[1] % (pattern.columns or 1) == 0 for e in entries))
    plan = plan_with(pattern=pattern, allocation=ALLOCATIONS.build(allocation))
    masks = ones(entries)
    evidence = evidence_of(entries, masks)
    target = round((1 - sparsity) * entries.total)
    sizes = [pattern.size(e.shape) for e in entries]
    try:
        feasible(plan, entries, 1 - sparsity)
    except RegrowError as error:
        assume("floors" not in str(error))
        raise
    decision = decide(plan, entries, masks, 1 - sparsity, evidence)
    if len(set(sizes)) == 1:
        assert abs(kept(decision) - target) <= sizes[0] / 2
    else:
        # Shares of whole units move between layers of unlike units, so some more may be missing.
        short = target - kept(decision)
        assert short >= 0
        assert short < (max(sizes) if allocation in ("global", "ssim_fill") else sum(sizes))
    for entry in entries:
        mask = decision.keep[entry.name]
        units = pattern.pool(mask.float())
        assert ((units == 0) | (units == 1)).all()
        assert units.sum() >= 1


def test_what_was_removed_one_by_one_stays_removed_in_a_block_that_is_kept() -> None:
    entries = inventory_of((8, 4), (8, 8))
    masks = ones(entries)
    for mask in masks.values():
        mask[::3, 1] = False
    plan = plan_with(pattern=Block(4, 1))
    keep = decide(plan, entries, masks, 0.5, evidence_of(entries, masks)).keep
    for name, mask in keep.items():
        assert not (mask & ~masks[name]).any()
        units = Block(4, 1).pool(mask.float())
        assert ((units > 0) & (units < 1)).any()  # such blocks were kept


def test_a_pattern_that_does_not_fit_names_the_layer() -> None:
    entries = inventory_of((8, 4), (8, 6))
    for pattern in (NofM(2, 4), Block(4, 4)):
        with pytest.raises(RegrowError, match=r"l1\.weight"):
            decide(plan_with(pattern=pattern), entries, ones(entries), 0.5, Evidence({}))
    fine = plan_with(pattern=NofM(2, 4), exclude=("l1",))
    assert (
        kept(decide(fine, entries, ones(entries), 0.8, evidence_of(entries, ones(entries)))) == 16
    )


def test_every_pattern_takes_part() -> None:
    entries = inventory_of((8, 4, 3, 3), (8, 8))
    for row in PATTERNS:
        if row.name == "unit":  # goes through several layers: tests/engine/test_unit_programs.py
            continue
        plan = plan_with(pattern=row.make())
        decision = decide(plan, entries, ones(entries), 0.25, evidence_of(entries, ones(entries)))
        assert abs(kept(decision) - 88) <= 2
