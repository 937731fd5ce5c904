"""One event of a plan of units: score, count, select, return. Pure: nothing is written."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regrow.core.decision import Decision
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.engine.best_units import best, measure_of, scored
from regrow.engine.groups import Groups
from regrow.engine.unit_plan import UnitPlan, of_dense


def grows(plan: UnitPlan, groups: Groups, units: Mapping[str, Tensor], density: float) -> bool:
    """Whether units return to reach a density."""
    measure = measure_of(groups, plan.pattern.of)
    return plan.regrowth is not None and measure(units) < density * measure({})


def decide_units(
    plan: UnitPlan,
    model: nn.Module,
    groups: Groups,
    units: Mapping[str, Tensor],
    density: float,
    evidence: Evidence,
    *,
    growing: bool,
) -> dict[str, Tensor]:
    """Which units shall stay at a density of the budget.

    Below the present density only living units compete; above it all living units stay and the
    best of the others return.

    Args:
        plan: the parts.
        model: whose groups they are.
        groups: of it.
        units: those that live.
        density: the target, a fraction of the budget.
        evidence: what the plan needs, to grow or to cut.
        growing: whether units return, as `grows` tells.

    Raises:
        RegrowError: the target is out of reach, or a score is NaN.
    """
    criterion = plan.criterion
    if growing:
        assert plan.regrowth is not None
        criterion = plan.regrowth
        wanted = {need: evidence[of_dense(need)] for need in criterion.needs}
        evidence = Evidence(wanted, key=evidence.key)
    scores = scored(criterion, groups, evidence, plan.pattern)
    for name, alive in units.items():
        if bool(torch.isnan(scores[name]).any()):
            raise RegrowError(
                f"{type(criterion).__name__} gives NaN scores in {name}; the weights or the "
                "gradients are not sound."
            )
        if growing:
            scores[name] = scores[name].masked_fill(alive, torch.inf)
        else:
            scores[name] = scores[name].masked_fill(~alive, -torch.inf)
    keep = best(model, groups, scores, 1 - density, plan.pattern, plan.floor)
    # The budget is met to the unit, so an equal target may leave room for units that are gone.
    return keep if growing else {name: mask & units[name] for name, mask in keep.items()}


def decision_of(
    groups: Groups,
    keep: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    evidence: Evidence,
) -> Decision:
    """The masks of weights by a choice of units; what returns has the dense network's values."""
    masks = groups.masks(keep, weights)
    dense = evidence.tensors.get(of_dense(Need("weight")))
    if dense is None:
        return Decision(masks)
    return Decision(masks, {n: torch.where(masks[n] & ~before[n], dense[n], 0) for n in masks})
