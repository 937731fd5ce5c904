"""Whether a target of a schedule asks for anything."""

from __future__ import annotations

from regrow.core.budget import kept_count
from regrow.core.protocols import SignalSchedule
from regrow.engine.event import scope
from regrow.engine.plan import Plan
from regrow.engine.progress import Progress
from regrow.engine.unit_plan import UnitPlan
from regrow.model.inventory import Inventory


def is_settled(
    plan: Plan | UnitPlan, at: Progress, entries: Inventory, density: float, exchange: float
) -> bool:
    """Whether nothing is left to do at a density.

    Args:
        plan: of the present stage.
        at: where the program stands.
        entries: the weights that are counted.
        density: the target.
        exchange: the fraction of the living weights to exchange at it.
    """
    if isinstance(plan, UnitPlan):
        return density == (1.0 if at.density is None else at.density)
    kept = sum(at.masks.kept.values())
    lack = kept_count(entries.total, density) - kept
    same = density == at.density or lack == 0
    if lack > 0 and plan.regrowth is None:
        # A cut is to whole units: less than one beyond the target is no call to grow.
        same |= lack < max(plan.pattern.size(entry.shape) for entry in scope(plan, entries))
    idle = kept == entries.total or (not plan.competes and exchange <= 0)
    return same and idle


def is_ahead(plan: Plan | UnitPlan, at: Progress, entries: Inventory, density: float) -> bool:
    """Whether the masks that a program began with are sparser than its ramp's target is yet.

    The ramp then goes on where it passes them. A schedule that ends denser than they are is none.
    """
    kept = sum(at.masks.kept.values())
    if at.events or at.stage or isinstance(plan, UnitPlan) or kept == entries.total:
        return False
    schedule = plan.schedule
    if isinstance(schedule, SignalSchedule):
        final: float | None = 1 - schedule.sparsity
    else:
        final = schedule.target(schedule.last)
    assert final is not None
    return kept_count(entries.total, density) > kept >= kept_count(entries.total, final)
