"""What recipes share: building a plan from names, and pacing cuts by epochs or by patience."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

from regrow.core.errors import RegrowError, unknown
from regrow.core.evidence import Statistics
from regrow.core.protocols import Repair
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth, globs
from regrow.engine.unit_plan import UnitPlan
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.criteria import CRITERIA
from regrow.parts.patterns import PATTERNS
from regrow.parts.patterns.unit import Unit
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.patience import Patience
from regrow.parts.units import UNIT_CRITERIA, UnitCriterion


class Scope(TypedDict, total=False):
    """What may be cut, the same keywords in every recipe; parts by name, by table or built.

    allocation ("global") and pattern ("element") are parts; include and exclude are globs of
    layers; floor is the least number of units that stay in a layer; statistics ("batch", or
    "running") are those by which batch norms normalise while gradients are read.

    With pattern "unit", channels and heads are cut: the sparsity is of multiply-adds, or of what
    the pattern's options say, and so is the comparison of layers.
    """

    allocation: Any
    pattern: Any
    include: Sequence[str]
    exclude: Sequence[str]
    floor: int
    statistics: Statistics


class Cut(Scope, total=False):
    """A scope, and the criterion ("lamp"; of units "norm") that ranks what is cut."""

    criterion: Any


CUT = Cut(
    criterion=None,
    allocation="global",
    pattern="element",
    include=("*",),
    exclude=(),
    floor=1,
    statistics="batch",
)


def plan(
    schedule: Any,
    cut: Cut,
    regrowth: Regrowth | None = None,
    memory: float | None = None,
    repair: Repair | None = None,
) -> Plan | UnitPlan:
    """A plan from a schedule and the recipe's keywords: of weights, or of units by its pattern.

    Raises:
        RegrowError: a keyword is none of `Cut`'s, or units should return by a rule for weights or
            be repaired.
    """
    how = _complete(cut)
    if isinstance(PATTERNS.build(how["pattern"]), Unit):
        if regrowth is not None or memory is not None:
            raise RegrowError(
                "this recipe lets weights return one by one; channels and heads return by "
                "'bidirectional_units'."
            )
        if repair is not None:
            raise RegrowError(
                "this recipe repairs weights one by one, not channels and heads; leave the pattern "
                "at weights, or the repair out (update='none')."
            )
        return unit_plan(schedule, cut)
    return Plan(
        schedule,
        CRITERIA.build("lamp" if how["criterion"] is None else how["criterion"]),
        ALLOCATIONS.build(how["allocation"]),
        PATTERNS.build(how["pattern"]),
        regrowth=regrowth,
        include=globs(how["include"]),
        exclude=globs(how["exclude"]),
        floor=how["floor"],
        memory=memory,
        statistics=how["statistics"],
        repair=repair,
    )


def sparse_start(sparsity: float, cut: Cut) -> Stage:
    """A random cut before the first step, with as many weights in each layer as is allocated."""
    return Stage(plan(OneShot(sparsity), {**cut, "criterion": "random"}), Step.epochs(0))


def unit_plan(schedule: Any, cut: Cut, regrowth: UnitCriterion | None = None) -> UnitPlan:
    """A plan of units from a schedule and the recipe's keywords.

    Raises:
        RegrowError: a keyword is none of `Cut`'s or does not go with units, or the criterion is of
            weights.
    """
    how = _complete(cut)
    pattern = PATTERNS.build(how["pattern"])
    if not isinstance(pattern, Unit):
        raise RegrowError(
            f"this recipe cuts channels and heads: its pattern is 'unit', not {pattern!r}."
        )
    if how["allocation"] != "global":
        raise RegrowError(
            "units are compared as their pattern says; instead of allocation give, for instance, "
            "pattern={'name': 'unit', 'scope': 'local'}."
        )
    criterion = UNIT_CRITERIA.build("norm" if how["criterion"] is None else how["criterion"])
    if any(type(criterion) is row.make for row in CRITERIA):
        names = ", ".join(row.name for row in UNIT_CRITERIA)
        raise RegrowError(
            f"{type(criterion).__name__} ranks weights, not channels and heads; take one of "
            f"{names}, or leave the pattern at weights."
        )
    return UnitPlan(
        schedule,
        criterion,
        pattern,
        regrowth,
        globs(how["include"]),
        globs(how["exclude"]),
        how["floor"],
        how["statistics"],
    )


def _complete(cut: Cut) -> dict[str, Any]:
    for key in cut:
        if key not in CUT:
            raise unknown("keyword of a recipe:", key, CUT)
    return {**CUT, **cut}


def paced(
    schedule: Any,
    sparsities: Sequence[float],
    epochs: int,
    patience: int | Sequence[int] | None,
    cut: Cut,
    seed: int,
    *,
    rewind: bool = False,
) -> Program:
    """One stage: the schedule over fixed epochs, or its sparsities at the pace of patience.

    With patience, `epochs` is the cap of the whole program, shared equally by the cuts.
    """
    if patience is None:
        made = replace(plan(schedule, cut), rewind=rewind)
        return Program((Stage(made, Step.epochs(epochs)),), seed)
    waits = (patience,) if isinstance(patience, int) else tuple(patience)
    watched = Patience(tuple(sparsities), waits, cap=interval(epochs, len(sparsities)).value)
    return Program((Stage(replace(plan(watched, cut), rewind=rewind)),), seed)


def at_the_start(
    sparsity: float, epochs: int, criterion: Any, seed: int, scope: Scope, *, rounds: int = 1
) -> Program:
    """One cut of initial weights before all training; what stays is trained for all the epochs.

    Raises:
        RegrowError: several rounds of units, or a keyword that is none of `Scope`'s.
    """
    made = plan(OneShot(sparsity), {"criterion": criterion, **scope})
    if rounds != 1:
        if isinstance(made, UnitPlan):
            raise RegrowError(
                f"channels and heads are cut in one round, not {rounds}; give rounds=1, or a "
                "pattern of weights."
            )
        made = replace(made, rounds=rounds)
    return Program((Stage(made, Step.epochs(epochs)),), seed, "initial")


def interval(epochs: int, cuts: int) -> Step:
    """Epochs for each of several cuts.

    Raises:
        RegrowError: there is less than one.
    """
    if cuts < 1 or epochs < cuts:
        raise RegrowError(f"{cuts} cuts do not fit {epochs} epochs; each needs at least one.")
    return Step.epochs(epochs // cuts)
