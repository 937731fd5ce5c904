"""What stays, what returns, and when: the parts of one way of pruning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from regrow.core.errors import RegrowError, unknown
from regrow.core.evidence import Need, Statistics
from regrow.core.protocols import (
    Allocation,
    Criterion,
    Pattern,
    Penalty,
    Schedule,
    Selector,
    SignalSchedule,
    Value,
)
from regrow.core.step import Step
from regrow.core.table import Table
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.allocate.global_ import Global
from regrow.parts.criteria import CRITERIA
from regrow.parts.criteria.magnitude import Magnitude
from regrow.parts.patterns import PATTERNS
from regrow.parts.patterns.element import Element
from regrow.parts.patterns.unit import Unit
from regrow.parts.penalty import PENALTIES
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.regrowth.values import Zero
from regrow.parts.schedule import SCHEDULES
from regrow.parts.select import SELECTORS
from regrow.parts.select.top_k import TopK

_TABLES: dict[str, Table[Any]] = {
    "criterion": CRITERIA,
    "schedule": SCHEDULES,
    "allocation": ALLOCATIONS,
    "pattern": PATTERNS,
    "selector": SELECTORS,
    "rule": RULES,
    "value": VALUES,
    "penalty": PENALTIES,
}


_LIVE = {Need("gradient"), Need("gradient_square"), Need("hessian_gradient")}


def globs(given: str | Sequence[str]) -> tuple[str, ...]:
    """Globs of layers: several, or a single one as text."""
    return (given,) if isinstance(given, str) else tuple(given)


@dataclass(frozen=True)
class Regrowth:
    """How removed weights return when the target density rises.

    Attributes:
        rule: ranks removed entries, higher returns first.
        value: with which value they return.
        allocation: how many return in each layer.
        layers: globs of the layers that may get weights back.
        ssim_below: only layers whose similarity to the dense activations is below this may;
            where they have too little room, the next most damaged layers join. None: all.
        exchange: the fraction of the living weights that every event cuts beyond its target and
            lets grow back elsewhere, at first; it falls along a cosine until the schedule's last
            event (Liu et al. 2021, "GraNet"; Evci et al. 2020). Events then happen at an
            unchanged target too.
        exchange_end: the fraction at the last event; equal to `exchange` it stays the same.
        within: "network" lets all layers compete in an exchange, for what goes and what returns.
            "layer" gives every layer back as many units as it has lost, so that only the plan's
            own cuts, which come first in an event, move weights between layers.
    """

    rule: Criterion
    value: Value = field(default_factory=Zero)
    allocation: Allocation = field(default_factory=Global)
    layers: tuple[str, ...] = ("*",)
    ssim_below: float | None = None
    exchange: float = 0.0
    exchange_end: float = 0.0
    within: Literal["network", "layer"] = "network"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", globs(self.layers))
        if not 0 <= self.exchange < 1:
            raise RegrowError(
                f"exchange={self.exchange} is a fraction of the living weights, in [0, 1)."
            )
        if not 0 <= self.exchange_end <= self.exchange:
            raise RegrowError(
                f"exchange_end={self.exchange_end} is where the exchange falls to, between 0 and "
                f"exchange={self.exchange}."
            )
        if self.within not in ("network", "layer"):
            raise RegrowError(f"within={self.within!r} is neither 'network' nor 'layer'.")
        if self.within == "layer" and any(need.of == "reference" for need in self.rule.needs):
            raise RegrowError(
                "a rule by a reference network may find too few weights to return in a layer; "
                "take another rule for an exchange within layers."
            )
        if self.exchange and (self.layers != ("*",) or self.ssim_below is not None):
            raise RegrowError(
                "an exchange takes weights from all layers, so all must be able to get them back; "
                "leave out the candidate layers and ssim_below, or exchange."
            )
        if self.exchange and Need("trial") in self.allocation.needs:
            raise RegrowError(
                "an exchange happens too often to learn its layer budgets by trial; leave exchange "
                "at 0, or take another allocation."
            )

    @property
    def needs(self) -> frozenset[Need]:
        needs = self.rule.needs | self.value.needs | self.allocation.needs
        return needs if self.ssim_below is None else needs | {Need("damage")}


@dataclass(frozen=True)
class Plan:
    """One way of choosing what stays, and when.

    Attributes:
        schedule: the target density over time, or driven by a signal.
        criterion: what a weight is worth.
        allocation: how many units each layer keeps.
        pattern: what is kept or removed together.
        selector: which units stay, given how many.
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
    """

    schedule: Schedule | SignalSchedule
    criterion: Criterion = field(default_factory=Magnitude)
    allocation: Allocation = field(default_factory=Global)
    pattern: Pattern = field(default_factory=Element)
    selector: Selector = field(default_factory=TopK)
    regrowth: Regrowth | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    floor: int = 1
    memory: float | None = None
    statistics: Statistics = "batch"
    rewind: bool = False
    penalty: Penalty | None = None
    rounds: int = 1

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
        if self.rewind and (self.regrowth is not None or self.memory is not None):
            raise RegrowError(
                "rewind gives all weights their first values again, so nothing can be remembered "
                "or return with others; leave out rewind, or regrowth and memory."
            )
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 1:
            raise RegrowError(f"rounds={self.rounds!r} is a whole number of at least 1.")
        if self.rounds > 1 and (self.regrowth is not None or self.memory is not None):
            raise RegrowError(
                f"rounds={self.rounds} are steps of a cut after which nothing returns; leave out "
                "rounds, or regrowth and memory."
            )
        if self.floor < 1:
            raise RegrowError(
                f"floor={self.floor} would let layers be emptied; it is a count of at least 1."
            )
        if self.statistics not in get_args(Statistics):
            raise RegrowError(f"statistics={self.statistics!r} is neither 'batch' nor 'running'.")
        if not self.needs & _LIVE:
            object.__setattr__(self, "statistics", "running")
        object.__setattr__(self, "include", globs(self.include))
        object.__setattr__(self, "exclude", globs(self.exclude))

    @property
    def needs(self) -> frozenset[Need]:
        """All evidence that some event of the plan may ask for."""
        needs = self.criterion.needs | self.allocation.needs
        if self.competes:
            needs |= {Need("weight")}
        if self.rewind:
            needs |= {Need("weight", "dense")}
        return needs | self.regrowth.needs if self.regrowth else needs

    @property
    def competes(self) -> bool:
        """Whether removed weights return by competing under the criterion."""
        return self.memory is not None and self.regrowth is None

    def steps(self, present: float, density: float) -> list[float]:
        """Densities of an event's rounds from the present one, d (density / d)^(j / rounds)."""
        share = density / present
        return [*(present * share ** (j / self.rounds) for j in range(1, self.rounds)), density]

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
        RegrowError: the schedule has not one event, after the choice and in the penalty's unit, or
            something returns.
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
    if plan.regrowth is not None or plan.memory is not None or plan.rewind:
        raise RegrowError(
            "a penalty drives weights to zero, so there is nothing to return or go back to; leave "
            "out regrowth, memory and rewind."
        )


def plan_spec(plan: Plan) -> dict[str, Any]:
    """A plan as plain data, parts by their names in the tables."""
    spec: dict[str, Any] = {
        name: _TABLES[name].spec(getattr(plan, name))
        for name in ("criterion", "schedule", "allocation", "pattern", "selector")
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
