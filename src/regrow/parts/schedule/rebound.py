"""A ramp beyond the target, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.step import EPOCH, Step
from regrow.parts.schedule.cubic import Cubic


@dataclass(frozen=True)
class Rebound:
    """A cubic ramp to the overshoot at `peak`, then a straight way back to the target at `end`.

    With peak p and end e: s_o + (s_i - s_o) (1 - t / p)^3 up to p, then
    s_o + (s - s_o) (t - p) / (e - p). Events fall on every `every` steps, on `peak` and on `end`.
    An overshoot equal to the sparsity holds it from the peak on; events then go on at an unchanged
    target, for plans with a memory or an exchange.

    Source: the way up Zhu and Gupta 2017, eq. 1; overshoot and return arXiv 2511.11675 (2025), in
    one step there.

    Raises:
        RegrowError: a sparsity outside [0, 1), an overshoot below the sparsity, steps of different
            units, or 0 < peak < end does not hold.
    """

    sparsity: float
    overshoot: float
    peak: Step
    end: Step
    every: Step = EPOCH
    initial: float = 0.0

    def __post_init__(self) -> None:
        for name in ("peak", "end", "every"):  # A recipe file gives text.
            object.__setattr__(self, name, Step.of(getattr(self, name)))
        check_sparsity(self.sparsity)
        check_sparsity(self.overshoot, "overshoot")
        check_sparsity(self.initial, "initial sparsity")
        if not max(self.initial, self.sparsity) <= self.overshoot:
            raise RegrowError(
                f"overshoot={self.overshoot} must not be below sparsity={self.sparsity} or "
                f"initial={self.initial}: the ramp goes up to it, and comes back to the target."
            )
        if len({self.peak.unit, self.end.unit, self.every.unit}) > 1:
            raise RegrowError(
                f"peak={self.peak}, end={self.end} and every={self.every} must be of one unit."
            )
        if not 0 < self.peak.value < self.end.value or self.every.value < 1:
            raise RegrowError(
                f"the way up and back needs 0 < peak < end and every >= 1; got peak={self.peak}, "
                f"end={self.end}, every={self.every}."
            )

    @property
    def last(self) -> Step:
        return self.end

    def target(self, step: Step) -> float | None:
        now, peak, end = step.value, self.peak.value, self.end.value
        if step.unit != self.end.unit or now > end:
            return None
        if now <= peak:
            up = Cubic(self.overshoot, self.peak, every=self.every, initial=self.initial)
            return up.target(step)
        if now == end:
            return 1.0 - self.sparsity
        if now % self.every.value:
            return None
        back = (now - peak) / (end - peak)
        return 1.0 - (self.overshoot + (self.sparsity - self.overshoot) * back)
