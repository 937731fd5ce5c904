"""A strategy as a value: hashable, printable, written to and read from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.core.protocols import Schedule, SignalSchedule
from regrow.core.step import Step
from regrow.engine.plan import Plan, plan_of, plan_spec
from regrow.engine.unit_plan import UnitPlan, unit_plan_of, unit_spec


@dataclass(frozen=True)
class Stage:
    """A plan with an end.

    Attributes:
        plan: what is done.
        length: how long the stage lasts; None for a signal-driven schedule, which ends itself.
            Nothing, as in Step(0), is for one event before the next stage begins, such as a random
            cut that starts a program sparse.
        keep_reference: at the end of the stage keep the weights as the reference network.
    """

    plan: Plan | UnitPlan
    length: Step | None = None
    keep_reference: bool = False


@dataclass(frozen=True)
class Program:
    """Stages in order: what a recipe returns.

    Attributes:
        stages: one after the other.
        seed: of random parts.
        start: what the method is meant for: a "dense" network that has been trained, or "initial"
            weights, so that all training is its own. `attach` takes the network as it is; runs
            and studies start accordingly.

    Raises:
        RegrowError: there is no stage; a stage lacks its length or does not fit its schedule; the
            stages differ in pattern or scope; or a target rises in a stage without regrowth.
    """

    stages: tuple[Stage, ...]
    seed: int = 0
    start: Literal["dense", "initial"] = "dense"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "seed", int(self.seed))
        if not self.stages:
            raise RegrowError("a program needs at least one stage.")
        if self.start not in ("dense", "initial"):
            raise RegrowError(f"start={self.start!r} is neither 'dense' nor 'initial'.")
        first = self.stages[0].plan
        reached, forgot = 0.0, False
        if len(self.stages) > 1 and any(stage.plan.reparam is not None for stage in self.stages):
            raise RegrowError(
                "a stage with a reparametrisation is a program of its own, since what it trains is "
                "not what the network uses; run the stages as separate programs."
            )
        for number, stage in enumerate(self.stages, 1):
            plan, where = stage.plan, f"stage {number} of {len(self.stages)}"
            _check_length(stage, where, final=number == len(self.stages))
            if plan.memory is not None and forgot:
                raise RegrowError(
                    f"{where} remembers removed weights, but an earlier stage has cut without a "
                    "memory; give that one memory=0 too."
                )
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
                forgot = forgot or (sparsity > 0 and plan.memory is None)

    @property
    def sparsity(self) -> float | None:
        """Where the program ends; None where that is an outcome of training."""
        plan = self.stages[-1].plan
        return None if plan.reparam is not None else plan.schedule.sparsity

    @property
    def structured(self) -> bool:
        """Whether it removes whole units, so that the network can be shrunk afterwards."""
        return isinstance(self.stages[0].plan, UnitPlan)

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
                "plan": _spec(stage.plan),
                "length": None if stage.length is None else str(stage.length),
                "keep_reference": stage.keep_reference,
            }
            for stage in self.stages
        ]
        start = {} if self.start == "dense" else {"start": self.start}
        data = {"seed": self.seed, "stages": stages, **start}
        return json.dumps(_canonical(data), sort_keys=True)

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
            return cls(stages, int(data["seed"]), data.get("start", "dense"))
        except RegrowError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RegrowError(f"this is no regrow program: {error!r}.") from error


def _spec(plan: Plan | UnitPlan) -> dict[str, Any]:
    return unit_spec(plan) if isinstance(plan, UnitPlan) else plan_spec(plan)


def _plan_of(spec: Any) -> Plan | UnitPlan:
    return unit_plan_of(spec) if spec["pattern"]["name"] == "unit" else plan_of(spec)


def _check_length(stage: Stage, where: str, *, final: bool) -> None:
    schedule, length = stage.plan.schedule, stage.length
    last = getattr(schedule, "last", None)
    if last is None:
        if length is not None:
            raise RegrowError(f"{where} ends by its signal; give it no length.")
        return
    if length is None or (final and not length.value):
        raise RegrowError(f"{where} needs a length of at least one epoch or iteration.")
    if not length.value and last.value:
        raise RegrowError(
            f"{where} lasts nothing, but the last event of its schedule falls on {last}; make the "
            "stage longer, or take one_shot."
        )
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
