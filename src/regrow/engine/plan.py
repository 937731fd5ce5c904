"""What stays, what returns, and when: the parts of one way of pruning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from regrow.core.errors import RegrowError, unknown
from regrow.core.evidence import Need, Statistics
from regrow.core.protocols import (
    Allocation,
    Criterion,
    Pattern,
    Penalty,
    Repair,
    Reparam,
    Schedule,
    SignalSchedule,
)
from regrow.core.step import Step
from regrow.core.table import Table
from regrow.engine.apart import check_apart
from regrow.engine.regrowth import Regrowth, globs
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.allocate.global_ import Global
from regrow.parts.criteria import CRITERIA
from regrow.parts.criteria.magnitude import Magnitude
from regrow.parts.patterns import PATTERNS
from regrow.parts.patterns.element import Element
from regrow.parts.patterns.unit import Unit
from regrow.parts.penalty import PENALTIES
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.repair import REPAIRS
from regrow.parts.reparam import REPARAMS
from regrow.parts.schedule import SCHEDULES
from regrow.parts.schedule.outcome import Outcome

_TABLES: dict[str, Table[Any]] = {
    "criterion": CRITERIA,
    "schedule": SCHEDULES,
    "allocation": ALLOCATIONS,
    "pattern": PATTERNS,
    "repair": REPAIRS,
    "rule": RULES,
    "value": VALUES,
    "penalty": PENALTIES,
    "reparam": REPARAMS,
}


_LIVE = {"gradient", "gradient_square", "hessian_gradient", "inverse_fisher"}


@dataclass(frozen=True)
class Plan:
    """One way of choosing what stays, and when.

    Attributes:
        schedule: the target density over time, or driven by a signal.
        criterion: what a weight is worth.
        allocation: how many units each layer keeps.
        pattern: what is kept or removed together.
        regrowth: how weights return when the target rises; None if it never does.
        include: globs of the layers that may be pruned.
        exclude: globs of the layers that stay whole; they count in the sparsity all the same.
        floor: the least number of units that stay in a layer, at least 1.
        memory: None lets the values of removed weights go. A number remembers them: the optimiser
            goes on updating them at so many times its speed, from the gradient that the sparse
            network has at their positions; 0 freezes them, 1 is the feedback of Lin et al. 2020
            ("Dynamic model pruning with feedback"). Without `regrowth` all weights then compete
            under the criterion at every event, whatever the target does; with it, rule and value
            may read what is remembered.
        statistics: by which batch norms normalise while gradients of the live network are read;
            see `regrow.model.collect.gradients`. Where nothing reads any it is "running".
        rewind: after every cut the whole network goes back to what it was at the start, removed
            weights aside, and the optimiser forgets (Frankle and Carbin 2019; Renda et al. 2020).
        penalty: pulls on what shall go, from when that is chosen until the schedule's one event
            removes it.
        rounds: an event cuts in so many steps, all at once, each to the same fraction of the
            survivors, with evidence collected anew before each (Tanaka et al. 2020, "SynFlow"). The
            log has one entry.
        repair: how the weights that stay move at a cut; None leaves them.
        reparam: weights are used as a function of those that are trained, and which of them are
            zero comes of that; then nothing is cut, and criterion and allocation rest.
    """

    schedule: Schedule | SignalSchedule
    criterion: Criterion = field(default_factory=Magnitude)
    allocation: Allocation = field(default_factory=Global)
    pattern: Pattern = field(default_factory=Element)
    regrowth: Regrowth | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    floor: int = 1
    memory: float | None = None
    statistics: Statistics = "batch"
    rewind: bool = False
    penalty: Penalty | None = None
    rounds: int = 1
    repair: Repair | None = None
    reparam: Reparam | None = None

    def __post_init__(self) -> None:
        check_penalty(self)
        if isinstance(self.pattern, Unit):
            raise RegrowError(
                "units go through several layers, so a plan of weights cannot cut them; take a "
                "UnitPlan, a recipe with pattern='unit', or regrow.choose and regrow.shrink."
            )
        if Need("trial") in self.allocation.needs:
            raise RegrowError(
                "layer budgets are learned by trial for what returns, not for what is cut; give "
                "this allocation to the regrowth (`layers` of a recipe)."
            )
        if self.memory is not None and not 0 <= self.memory <= 1:
            raise RegrowError(
                f"memory={self.memory} is the speed at which remembered values are updated, in "
                "[0, 1], or None."
            )
        signal = getattr(self.schedule, "last", None) is None
        if self.memory and signal:
            raise RegrowError(
                "patience goes back to earlier weights, of which no memory is kept; with such a "
                "schedule give memory=0 or None."
            )
        single = signal or not self.schedule.last.value  # type: ignore[union-attr]
        if single and self.regrowth is not None and self.regrowth.exchange:
            raise RegrowError(
                "an exchange needs events over time; give a schedule that has several, such as "
                "'rebound' or 'steady', or leave exchange at 0."
            )
        if self.memory is None and Need("weight", "remembered") in self.needs:
            raise RegrowError(
                "the rule or value of the regrowth reads remembered weights, but memory is None; "
                "give the plan or the recipe 'bidirectional' memory=0, which keeps them."
            )
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 1:
            raise RegrowError(f"rounds={self.rounds!r} is a whole number of at least 1.")
        check_apart(self)
        self._check_fisher()
        if isinstance(self.schedule, Outcome) != (self.reparam is not None):
            raise RegrowError(
                "the schedule 'outcome' asks for no sparsity and belongs to plans with a "
                "reparametrisation, which have no other; give both, as the recipe 'codeq' does."
            )
        if self.floor < 1:
            raise RegrowError(
                f"floor={self.floor} would let layers be emptied; it is a count of at least 1."
            )
        if self.statistics not in get_args(Statistics):
            raise RegrowError(f"statistics={self.statistics!r} is neither 'batch' nor 'running'.")
        if not any(need.of == "current" and need.kind in _LIVE for need in self.needs):
            object.__setattr__(self, "statistics", "running")
        object.__setattr__(self, "include", globs(self.include))
        object.__setattr__(self, "exclude", globs(self.exclude))

    @property
    def needs(self) -> frozenset[Need]:
        """All evidence that some event of the plan may ask for."""
        needs = self.needs_to_cut
        if self.competes:
            needs |= {Need("weight")}
        if self.rewind:
            needs |= {Need("weight", "dense")}
        return needs | self.regrowth.needs if self.regrowth else needs

    @property
    def needs_to_cut(self) -> frozenset[Need]:
        """What a cut asks for."""
        needs = self.criterion.needs | self.allocation.needs
        return needs | self.repair.needs if self.repair else needs

    @property
    def competes(self) -> bool:
        """Whether removed weights return by competing under the criterion."""
        return self.memory is not None and self.regrowth is None

    def steps(self, present: float, density: float) -> list[float]:
        """Densities of an event's rounds from the present one, d (density / d)^(j / rounds)."""
        share = density / present
        return [*(present * share ** (j / self.rounds) for j in range(1, self.rounds)), density]

    def _check_fisher(self) -> None:
        inverses = {need for need in self.needs if need.how is not None}
        if len(inverses) > 1:
            raise RegrowError(
                "criterion and repair ask for different inverses of the Fisher "
                f"({', '.join(sorted(str(need.how) for need in inverses))}); give both the same "
                "gradients, chunk, damping and memory_gib."
            )
        if inverses and self.competes:
            raise RegrowError(
                "removed weights have no gradients in a Fisher, so they cannot compete by it; "
                "leave memory at None, or take another criterion."
            )

    def exchange_at(self, step: Step) -> float:
        """The fraction of living weights to exchange at a step: a cosine until the last event.

        With e the exchange, f its end and T the last event: f + (e - f) (1 + cos(pi t / T)) / 2.
        Steps of another unit than the schedule's exchange nothing.
        """
        last = getattr(self.schedule, "last", None)
        if self.regrowth is None or last is None or not last.value or step.unit != last.unit:
            return 0.0
        most, least = self.regrowth.exchange, self.regrowth.exchange_end
        wave = 1 + math.cos(math.pi * step.value / last.value)
        return least + (most - least) * 0.5 * wave


def check_penalty(plan: Any) -> None:
    """Refuse a plan, of weights or of units, whose penalty leads to no removal.

    Raises:
        RegrowError: the schedule has not one event, after the choice and in the penalty's unit.
    """
    penalty, last = plan.penalty, getattr(plan.schedule, "last", None)
    if penalty is None:
        return
    unit, choice = penalty.every.unit, penalty.choice
    if (
        last is None
        or last.unit != unit
        or last.value <= choice.value
        or any(plan.schedule.target(Step(i, unit)) is not None for i in range(last.value))
    ):
        raise RegrowError(
            f"a penalty needs a schedule with one event, counted in {unit}s and after the choice "
            f"at {choice}: 'manual' with one sparsity."
        )


def plan_spec(plan: Plan) -> dict[str, Any]:
    """A plan as plain data, parts by their names in the tables."""
    spec: dict[str, Any] = {
        name: _TABLES[name].spec(getattr(plan, name))
        for name in ("criterion", "schedule", "allocation", "pattern")
    }
    spec |= {"include": list(plan.include), "exclude": list(plan.exclude), "floor": plan.floor}
    spec["memory"] = plan.memory
    if plan.statistics != "running":
        spec["statistics"] = plan.statistics
    if plan.rewind:
        spec["rewind"] = True
    if plan.penalty is not None:
        spec["penalty"] = PENALTIES.spec(plan.penalty)
    if plan.rounds > 1:
        spec["rounds"] = plan.rounds
    if plan.repair is not None:
        spec["repair"] = REPAIRS.spec(plan.repair)
    if plan.reparam is not None:
        spec["reparam"] = REPARAMS.spec(plan.reparam)
    grow = plan.regrowth
    spec["regrowth"] = grow and {
        "rule": RULES.spec(grow.rule),
        "value": VALUES.spec(grow.value),
        "allocation": ALLOCATIONS.spec(grow.allocation),
        "layers": list(grow.layers),
        "ssim_below": grow.ssim_below,
        "exchange": grow.exchange,
        **{
            name: value
            for name, value in (("exchange_end", grow.exchange_end), ("within", grow.within))
            if value not in (0.0, "network")
        },
    }
    return spec


def plan_of(spec: Mapping[str, Any]) -> Plan:
    """The inverse of `plan_spec`; what says nothing of statistics means the running ones.

    Raises:
        RegrowError: an unknown key or part.
    """
    return Plan(**{"statistics": "running", **_parts(spec, Plan.__dataclass_fields__)})


def _parts(spec: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key, value in spec.items():
        if key not in known:
            raise unknown("key of a plan:", key, known)
        if key == "regrowth":
            value = value and Regrowth(**_parts(value, Regrowth.__dataclass_fields__))
        elif key in _TABLES:
            value = _TABLES[key].build(value)
        elif isinstance(value, list):
            value = tuple(value)
        built[key] = value
    return built
