"""Gradual pruning with a cubic ramp."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.step import EPOCH, START, Step


@dataclass(frozen=True)
class Cubic:
    """Gradual magnitude pruning's ramp: s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3.

    Events fall on every `every` steps from `start`, and on `end`, which reaches the target
    exactly whether or not the interval divides the window.

    Source: Zhu and Gupta 2017, "To prune, or not to prune", eq. 1.

    Raises:
        RegrowError: a sparsity outside [0, 1), steps of different units, an empty window or
            interval, or a start beyond the target.
    """

    sparsity: float
    end: Step
    start: Step = START
    every: Step = EPOCH
    initial: float = 0.0

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_sparsity(self.initial, "initial sparsity")
        if self.start.value == 0:  # Zero is zero in any unit.
            object.__setattr__(self, "start", Step(0, self.end.unit))
        if len({self.start.unit, self.end.unit, self.every.unit}) > 1:
            raise RegrowError(
                f"start={self.start}, end={self.end} and every={self.every} must be of one unit."
            )
        if self.end.value <= self.start.value or self.every.value < 1:
            raise RegrowError(
                f"the ramp needs start < end and every >= 1; got start={self.start}, "
                f"end={self.end}, every={self.every}."
            )
        if self.initial > self.sparsity:
            raise RegrowError(f"the ramp starts at {self.initial}, beyond {self.sparsity}.")

    @property
    def last(self) -> Step:
        return self.end

    def target(self, step: Step) -> float | None:
        since = step.value - self.start.value
        window = self.end.value - self.start.value
        if step.unit != self.end.unit or not 0 <= since <= window:
            return None
        if since == window:
            return 1.0 - self.sparsity
        if since % self.every.value:
            return None
        left = (1 - since / window) ** 3
        return 1.0 - (self.sparsity + (self.initial - self.sparsity) * left)
