"""Bidirectional pruning of channels and heads: cut too far, then let the best return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.evidence import Statistics
from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.units import UNIT_CRITERIA
from regrow.recipes.common import Cut, unit_plan

_SUMMED = {"name": "taylor", "summed": True}


def bidirectional_units(
    sparsity: float = 0.5,
    overshoot: float = 0.75,
    epochs: Sequence[int] = (30, 30),
    *,
    regrow: Any = _SUMMED,
    criterion: Any = "norm",
    pattern: Any = "unit",
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    floor: int = 1,
    statistics: Statistics = "batch",
    seed: int = 0,
) -> Program:
    """Cut channels and heads to an extreme, train, let the best return to the target, train.

    Units return with the weights that they had in the dense network, ranked by what they were
    worth there. `regrow.shrink` makes the small network at the end.

    Args:
        sparsity: the fraction removed at the end, of what the pattern says: multiply-adds.
        overshoot: the fraction removed before regrowth, above `sparsity`.
        epochs: fine-tuning after the cut, and after the return.
        regrow: the criterion of units that ranks those that return.
        criterion: of units, ranks what is cut.
        pattern: "unit", or a table with this name and options such as `of` and `round_to`.
        include, exclude, floor, statistics: see `UnitPlan`.
        seed: of random parts.

    Source:
        arXiv 2511.11675 (2025), the structured variant; details from the authors' code.

    Departures:
        The budget is of multiply-adds over all groups (there, a fraction of the channels), and
        scores are compared over groups by their means.

    Raises:
        RegrowError: overshoot <= sparsity, or a length below 1.
    """
    check_sparsity(sparsity)
    check_sparsity(overshoot, "overshoot")
    if overshoot <= sparsity:
        raise RegrowError(
            f"overshoot={overshoot} must be above sparsity={sparsity}: the cut goes further than "
            "the target, and regrowth comes back to it."
        )
    if isinstance(epochs, int) or len(epochs) != 2 or min(epochs) < 1:
        raise RegrowError(
            f"epochs={epochs} must be two numbers (after the cut, after the return), each at "
            "least 1."
        )
    cut = Cut(
        criterion=criterion,
        pattern=pattern,
        include=include,
        exclude=exclude,
        floor=floor,
        statistics=statistics,
    )
    down = unit_plan(OneShot(overshoot), cut)
    up = unit_plan(OneShot(sparsity), cut, UNIT_CRITERIA.build(regrow))
    stages = (Stage(down, Step.epochs(epochs[0])), Stage(up, Step.epochs(epochs[1])))
    return Program(stages, seed)
