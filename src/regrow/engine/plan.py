"""A strategy as a value: hashable, printable, written to and read from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regrow.core.errors import RegrowError, unknown
from regrow.core.evidence import Need
from regrow.core.protocols import (
    Allocation,
    Criterion,
    Pattern,
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
}


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
            lets grow back elsewhere, at first; it falls to zero along a cosine until the
            schedule's last event (Liu et al. 2021, "GraNet"; Evci et al. 2020). Events then
            happen at an unchanged target too.
    """

    rule: Criterion
    value: Value = field(default_factory=Zero)
    allocation: Allocation = field(default_factory=Global)
    layers: tuple[str, ...] = ("*",)
    ssim_below: float | None = None
    exchange: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", globs(self.layers))
        if not 0 <= self.exchange < 1:
            raise RegrowError(
                f"exchange={self.exchange} is a fraction of the living weights, in [0, 1)."
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

    def __post_init__(self) -> None:
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
        if self.memory is None and Need("weight", "remembered") in self.needs:
            raise RegrowError(
                "the rule or value of the regrowth reads remembered weights, but memory is None; "
                "give memory=0 to keep them as they were removed."
            )
        if self.floor < 1:
            raise RegrowError(
                f"floor={self.floor} would let layers be emptied; it is a count of at least 1."
            )
        object.__setattr__(self, "include", globs(self.include))
        object.__setattr__(self, "exclude", globs(self.exclude))

    @property
    def needs(self) -> frozenset[Need]:
        """All evidence that some event of the plan may ask for."""
        needs = self.criterion.needs | self.allocation.needs
        if self.competes:
            needs |= {Need("weight")}
        return needs | self.regrowth.needs if self.regrowth else needs

    @property
    def competes(self) -> bool:
        """Whether removed weights return by competing under the criterion."""
        return self.memory is not None and self.regrowth is None

    def exchange_at(self, step: Step) -> float:
        """The fraction of living weights to exchange at a step: a cosine, zero at the last event.

        Steps of another unit than the schedule's exchange nothing.
        """
        last = getattr(self.schedule, "last", None)
        if self.regrowth is None or last is None or not last.value or step.unit != last.unit:
            return 0.0
        return self.regrowth.exchange * 0.5 * (1 + math.cos(math.pi * step.value / last.value))


@dataclass(frozen=True)
class Stage:
    """A plan with an end.

    Attributes:
        plan: what is done.
        length: how long the stage lasts; None for a signal-driven schedule, which ends itself.
        keep_reference: at the end of the stage keep the weights as the reference network.
    """

    plan: Plan
    length: Step | None = None
    keep_reference: bool = False


@dataclass(frozen=True)
class Program:
    """Stages in order: what a recipe returns.

    Raises:
        RegrowError: there is no stage; a stage lacks its length or does not fit its schedule; the
            stages differ in pattern or scope; or a target rises in a stage without regrowth.
    """

    stages: tuple[Stage, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "seed", int(self.seed))
        if not self.stages:
            raise RegrowError("a program needs at least one stage.")
        first = self.stages[0].plan
        reached = 0.0
        for number, stage in enumerate(self.stages, 1):
            plan, where = stage.plan, f"stage {number} of {len(self.stages)}"
            _check_length(stage, where)
            if (plan.pattern, plan.include, plan.exclude) != (
                first.pattern,
                first.include,
                first.exclude,
            ):
                raise RegrowError(f"{where} has another pattern or scope than the first stage.")
            for sparsity in sparsities(plan.schedule):
                returns = plan.regrowth is not None or plan.competes
                if sparsity < reached - 1e-9 and not returns:
                    raise RegrowError(
                        f"{where} goes from sparsity {reached:g} back to {sparsity:g} but has no "
                        "regrowth; name a rule, or start its schedule where the last stage ended."
                    )
                reached = sparsity

    @property
    def sparsity(self) -> float:
        """Where the program ends."""
        return self.stages[-1].plan.schedule.sparsity

    @property
    def epochs(self) -> int | None:
        """Its length, or None when a stage ends by a signal or after iterations."""
        lengths = [stage.length for stage in self.stages]
        if any(length is None or length.unit != "epoch" for length in lengths):
            return None
        return sum(length.value for length in lengths if length)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset().union(*(stage.plan.needs for stage in self.stages))

    def to_json(self) -> str:
        """Canonical text: equal programs give equal text."""
        stages = [
            {
                "plan": _plan_spec(stage.plan),
                "length": None if stage.length is None else str(stage.length),
                "keep_reference": stage.keep_reference,
            }
            for stage in self.stages
        ]
        return json.dumps(_canonical({"seed": self.seed, "stages": stages}), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Program:
        """The inverse of `to_json`.

        Raises:
            RegrowError: the text is no program, or names an unknown part.
        """
        try:
            data = json.loads(text)
            stages = tuple(
                Stage(
                    _plan_of(item["plan"]),
                    None if item["length"] is None else Step.of(item["length"]),
                    bool(item["keep_reference"]),
                )
                for item in data["stages"]
            )
            return cls(stages, int(data["seed"]))
        except RegrowError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RegrowError(f"this is no regrow program: {error!r}.") from error


def _check_length(stage: Stage, where: str) -> None:
    schedule, length = stage.plan.schedule, stage.length
    last = getattr(schedule, "last", None)
    if last is None:
        if length is not None:
            raise RegrowError(f"{where} ends by its signal; give it no length.")
        return
    if length is None or length.value < 1:
        raise RegrowError(f"{where} needs a length of at least one epoch or iteration.")
    if last.unit == length.unit and last.value >= length.value and last.value > 0:
        raise RegrowError(
            f"{where} lasts {length}, but the last event of its schedule falls on {last}; make "
            "the stage longer or the schedule shorter."
        )


def sparsities(schedule: Schedule | SignalSchedule) -> Sequence[float]:
    """All targets of a schedule, in order."""
    listed: Sequence[float] | None = getattr(schedule, "sparsities", None)
    if listed is not None:
        return listed
    if isinstance(schedule, SignalSchedule):
        return (schedule.sparsity,)
    steps = (Step(i, schedule.last.unit) for i in range(schedule.last.value + 1))
    targets = (schedule.target(step) for step in steps)
    return [1.0 - target for target in targets if target is not None]


def _canonical(value: Any) -> Any:
    # 0.0 == 0, so both are written as 0.
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plan_spec(plan: Plan) -> dict[str, Any]:
    spec: dict[str, Any] = {
        name: _TABLES[name].spec(getattr(plan, name))
        for name in ("criterion", "schedule", "allocation", "pattern", "selector")
    }
    spec |= {"include": list(plan.include), "exclude": list(plan.exclude), "floor": plan.floor}
    spec["memory"] = plan.memory
    grow = plan.regrowth
    spec["regrowth"] = grow and {
        "rule": RULES.spec(grow.rule),
        "value": VALUES.spec(grow.value),
        "allocation": ALLOCATIONS.spec(grow.allocation),
        "layers": list(grow.layers),
        "ssim_below": grow.ssim_below,
        "exchange": grow.exchange,
    }
    return spec


def _plan_of(spec: Mapping[str, Any]) -> Plan:
    return Plan(**_parts(spec, Plan.__dataclass_fields__))


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
