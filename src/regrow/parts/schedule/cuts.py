"""What the schedules share: a list of sparsities, reached one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.step import Step, nth


def density_at(sparsities: Sequence[float], every: Step, step: Step) -> float | None:
    """The density due at a step when cut i (from 0) falls on i * every; None between cuts."""
    index = nth(step, every)
    if index is None or index >= len(sparsities):
        return None
    return 1.0 - sparsities[index]


def check_cuts(sparsity: float, cuts: int, initial: float, every: Step) -> None:
    """Refuse what no list of cuts can mean.

    Raises:
        RegrowError: a sparsity outside [0, 1), fewer than one cut, a zero interval between
            several cuts, or a start beyond the target.
    """
    check_sparsity(sparsity)
    check_sparsity(initial, "initial sparsity")
    if cuts < 1:
        raise RegrowError(f"a schedule needs at least one cut; got cuts={cuts}.")
    if cuts > 1 and every.value < 1:
        raise RegrowError(f"{cuts} cuts need an interval of at least one step; got every={every}.")
    if initial > sparsity:
        raise RegrowError(
            f"the schedule starts at sparsity {initial} beyond its target {sparsity}; to grow "
            "back, use a stage of its own with a regrowth rule."
        )
