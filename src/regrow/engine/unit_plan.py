"""Which channels and heads stay, which return, and when: a plan of units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from regrow.core.errors import RegrowError, unknown
from regrow.core.evidence import Need, Statistics
from regrow.core.protocols import Penalty, Schedule, SignalSchedule
from regrow.core.step import Step
from regrow.core.table import Table
from regrow.engine.apart import check_apart
from regrow.engine.plan import check_penalty
from regrow.engine.regrowth import globs
from regrow.parts.patterns import PATTERNS
from regrow.parts.patterns.unit import Unit
from regrow.parts.penalty import PENALTIES
from regrow.parts.schedule import SCHEDULES
from regrow.parts.units import UNIT_CRITERIA, UnitCriterion
from regrow.parts.units.norm import Norm

_TABLES: dict[str, Table[Any]] = {
    "pattern": PATTERNS,
    "schedule": SCHEDULES,
    "criterion": UNIT_CRITERIA,
    "regrowth": UNIT_CRITERIA,
    "penalty": PENALTIES,
}
_LIVE = {Need("gradient"), Need("gradient_square"), Need("activation")}


@dataclass(frozen=True)
class UnitPlan:
    """One way of choosing which channels and heads stay, and when.

    While it runs, units that are removed are zeros in all parameters that belong to them, so the
    network, its optimiser and the loop stay as they are; `regrow.shrink` cuts them out at the end.

    Attributes:
        schedule: the target density over time, or driven by a signal; of what the pattern says.
        criterion: what a unit is worth.
        pattern: the budget, and how groups compare.
        regrowth: ranks the units that return when the target rises, as they were in the dense
            network; they return with its weights and statistics. None if it never rises.
        include: globs of the groups that may be cut, by the name of the layer that computes them.
        exclude: globs of layers whose outputs stay.
        floor: the least number of units that stay in a group, at least 1.
        statistics: by which batch norms normalise while gradients of the live network are read.
        rewind, penalty: see `Plan`; the pull is on all parameters of a unit.

    Source: return of channels: arXiv 2511.11675 (2025), the structured variant.
    """

    schedule: Schedule | SignalSchedule
    criterion: UnitCriterion = field(default_factory=Norm)
    pattern: Unit = field(default_factory=Unit)
    regrowth: UnitCriterion | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    floor: int = 1
    statistics: Statistics = "batch"
    rewind: bool = False
    penalty: Penalty | None = None

    memory = None
    competes = False
    reparam = None

    def __post_init__(self) -> None:
        check_penalty(self)
        if self.floor < 1:
            raise RegrowError(
                f"floor={self.floor} would let groups be emptied; it is a count of at least 1."
            )
        check_apart(self)
        if self.statistics not in get_args(Statistics):
            raise RegrowError(f"statistics={self.statistics!r} is neither 'batch' nor 'running'.")
        if not self.criterion.needs & _LIVE:
            object.__setattr__(self, "statistics", "running")
        object.__setattr__(self, "include", globs(self.include))
        object.__setattr__(self, "exclude", globs(self.exclude))

    @property
    def needs(self) -> frozenset[Need]:
        """All evidence that some event of the plan may ask for."""
        kept = {of_dense(Need("weight"))} if self.rewind else frozenset()
        return self.criterion.needs | self.needs_to_grow | kept

    @property
    def needs_to_grow(self) -> frozenset[Need]:
        """What an event asks for in which units return: of the dense network alone."""
        if self.regrowth is None:
            return frozenset()
        return frozenset({of_dense(Need("weight")), *map(of_dense, self.regrowth.needs)})

    def exchange_at(self, step: Step) -> float:
        """Nothing is exchanged; see `Plan.exchange_at`."""
        return 0.0


def unit_spec(plan: UnitPlan) -> dict[str, Any]:
    """A plan as plain data, parts by their names in the tables."""
    grow = plan.regrowth
    pattern = PATTERNS.spec(plan.pattern)
    if not plan.pattern.whole:
        del pattern["whole"]
    return {
        "pattern": pattern,
        "schedule": SCHEDULES.spec(plan.schedule),
        "criterion": UNIT_CRITERIA.spec(plan.criterion),
        "regrowth": None if grow is None else UNIT_CRITERIA.spec(grow),
        "include": list(plan.include),
        "exclude": list(plan.exclude),
        "floor": plan.floor,
        "statistics": plan.statistics,
        **({"rewind": True} if plan.rewind else {}),
        **({} if plan.penalty is None else {"penalty": PENALTIES.spec(plan.penalty)}),
    }


def unit_plan_of(spec: Mapping[str, Any]) -> UnitPlan:
    """The inverse of `unit_spec`.

    Raises:
        RegrowError: an unknown key or part.
    """
    built: dict[str, Any] = {}
    for key, value in spec.items():
        if key not in UnitPlan.__dataclass_fields__:
            raise unknown("key of a plan of units:", key, UnitPlan.__dataclass_fields__)
        if key in _TABLES and value is not None:
            value = _TABLES[key].build(value)
        built[key] = tuple(value) if isinstance(value, list) else value
    return UnitPlan(**built)


def of_dense(need: Need) -> Need:
    """The same of the network as it was at the start."""
    return need._replace(of="dense")
