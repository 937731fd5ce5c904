"""What recipes share: building a plan from names, and pacing cuts by epochs or by patience."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from regrow.core.errors import RegrowError, unknown
from regrow.core.evidence import Statistics
from regrow.core.step import Step
from regrow.engine.plan import Plan, Regrowth, globs
from regrow.engine.program import Program, Stage
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.criteria import CRITERIA
from regrow.parts.patterns import PATTERNS
from regrow.parts.schedule.patience import Patience


class Scope(TypedDict, total=False):
    """What may be cut, the same keywords in every recipe; parts by name, by table or built.

    allocation ("global") and pattern ("element") are parts; include and exclude are globs of
    layers; floor is the least number of units that stay in a layer; statistics ("batch", or
    "running") are those by which batch norms normalise while gradients are read.
    """

    allocation: Any
    pattern: Any
    include: Sequence[str]
    exclude: Sequence[str]
    floor: int
    statistics: Statistics


class Cut(Scope, total=False):
    """A scope, and the criterion ("lamp") that ranks what is cut."""

    criterion: Any


CUT = Cut(
    criterion="lamp",
    allocation="global",
    pattern="element",
    include=("*",),
    exclude=(),
    floor=1,
    statistics="batch",
)


def plan(
    schedule: Any, cut: Cut, regrowth: Regrowth | None = None, memory: float | None = None
) -> Plan:
    """A plan from a schedule and the recipe's keywords.

    Raises:
        RegrowError: a keyword is none of `Cut`'s.
    """
    for key in cut:
        if key not in CUT:
            raise unknown("keyword of a recipe:", key, CUT)
    how: dict[str, Any] = {**CUT, **cut}
    return Plan(
        schedule,
        CRITERIA.build(how["criterion"]),
        ALLOCATIONS.build(how["allocation"]),
        PATTERNS.build(how["pattern"]),
        regrowth=regrowth,
        include=globs(how["include"]),
        exclude=globs(how["exclude"]),
        floor=how["floor"],
        memory=memory,
        statistics=how["statistics"],
    )


def paced(
    schedule: Any,
    sparsities: Sequence[float],
    epochs: int,
    patience: int | Sequence[int] | None,
    cut: Cut,
    seed: int,
) -> Program:
    """One stage: the schedule over fixed epochs, or its sparsities at the pace of patience.

    With patience, `epochs` is the cap of the whole program, shared equally by the cuts.
    """
    if patience is None:
        return Program((Stage(plan(schedule, cut), Step.epochs(epochs)),), seed)
    waits = (patience,) if isinstance(patience, int) else tuple(patience)
    watched = Patience(tuple(sparsities), waits, cap=interval(epochs, len(sparsities)).value)
    return Program((Stage(plan(watched, cut)),), seed)


def interval(epochs: int, cuts: int) -> Step:
    """Epochs for each of several cuts.

    Raises:
        RegrowError: there is less than one.
    """
    if cuts < 1 or epochs < cuts:
        raise RegrowError(f"{cuts} cuts do not fit {epochs} epochs; each needs at least one.")
    return Step.epochs(epochs // cuts)
