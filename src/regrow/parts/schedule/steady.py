"""Events that go on at the target."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.step import EPOCH, START, Step
from regrow.parts.schedule.cubic import Cubic


@dataclass(frozen=True)
class Steady:
    """A cubic ramp up to the target, if any, and events at the target until the end.

    s + (s_i - s) (1 - t / r)^3 up to the ramp's end r, then s. Events fall on every `every` steps,
    on the ramp's end, which meets the target exactly, and on `end`; none falls on the start, where
    nothing has been learned. With a ramp of 0 the network has the sparsity already.

    Source: Liu et al. 2021, "Sparse training via boosting pruning plasticity with
    neuroregeneration" (ramp, then dynamic sparse training); Evci et al. 2020, "Rigging the
    lottery" (no ramp).

    Raises:
        RegrowError: a sparsity outside [0, 1), steps of different units, an empty interval, an end
            before the first event or the ramp's end, or a start beyond the target.
    """

    sparsity: float
    end: Step
    every: Step = EPOCH
    ramp: Step = START
    initial: float = 0.0

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        if self.ramp.value == 0:  # Zero is zero in any unit.
            object.__setattr__(self, "ramp", Step(0, self.end.unit))
        if len({self.end.unit, self.every.unit, self.ramp.unit}) > 1:
            raise RegrowError(
                f"ramp={self.ramp}, end={self.end} and every={self.every} must be of one unit."
            )
        if self.every.value < 1 or self.end.value < max(1, self.ramp.value):
            raise RegrowError(
                f"events at the target need every >= 1 and end >= 1, not before the ramp's end; "
                f"got ramp={self.ramp}, end={self.end}, every={self.every}."
            )
        if self.ramp.value:
            self._ramp()  # Raises where it makes no sense.
        elif self.initial:
            raise RegrowError(f"initial={self.initial} is where a ramp starts; give a ramp too.")

    @property
    def last(self) -> Step:
        return self.end

    def target(self, step: Step) -> float | None:
        if step.unit != self.end.unit or not 0 < step.value <= self.end.value:
            return None
        if step.value <= self.ramp.value:
            return self._ramp().target(step)
        due = step == self.end or not step.value % self.every.value
        return 1.0 - self.sparsity if due else None

    def _ramp(self) -> Cubic:
        return Cubic(self.sparsity, self.ramp, every=self.every, initial=self.initial)
