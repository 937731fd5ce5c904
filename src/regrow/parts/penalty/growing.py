"""An L2 penalty that grows step by step until what it pulls on can go without a jump."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from regrow.core.errors import RegrowError
from regrow.core.step import Step


@dataclass(frozen=True)
class Growing:
    """A strength that rises at equal intervals, on all weights at first and then on some.

    With `pick` zero it is chosen at once what shall go (GReg-1). Otherwise all are pulled alike
    until the strength is `pick`, and the choice falls then: where the loss is flat, weights have
    followed the pull further (GReg-2).

    Attributes:
        delta: added to the strength on what shall go, every so often.
        every: how often, from the start of the stage.
        ceiling: the greatest strength.
        pick: the strength on all weights at which the choice falls.
        pick_delta: added to the strength on all weights before it.
        recover: the strength on what stays, after the choice; below zero it works against weight
            decay.

    Source: Wang, Qin, Zhang, Fu 2021, "Neural pruning via growing regularization", alg. 1.

    Departures:
        The authors also end the growth of a layer once what stays is a thousand times as large as
        what goes; here the strength follows its schedule alone.

    Raises:
        RegrowError: an increment is not positive, or the ceiling is below where growth begins.
    """

    delta: float = 1e-4
    every: Step = field(default_factory=lambda: Step.iterations(10))
    ceiling: float = 1.0
    pick: float = 0.0
    pick_delta: float = 1e-5
    recover: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", Step.of(self.every))
        if not (self.delta > 0 and self.pick_delta > 0 and self.every.value > 0):
            raise RegrowError(
                f"a strength grows by delta={self.delta} and pick_delta={self.pick_delta} every "
                f"{self.every}; all three must be above zero."
            )
        if not 0 <= self.pick <= self.ceiling:
            raise RegrowError(
                f"pick={self.pick} must lie between 0 and the ceiling, {self.ceiling}."
            )

    @property
    def choice(self) -> Step:
        """When it is chosen what shall go, from the start of the stage."""
        return Step(self._picks * self.every.value, self.every.unit)

    def strengths(self, now: Step) -> tuple[float, float]:
        """The strengths on what shall go and on what stays; before the choice they are one.

        Args:
            now: from the start of the stage, in the unit of `every`.
        """
        grown = now.value // self.every.value
        if grown < self._picks:
            return (grown * self.pick_delta,) * 2
        more = grown - self._picks
        return min(self.pick + more * self.delta, self.ceiling), self.recover

    @property
    def _picks(self) -> int:
        # A quotient a rounding error above a whole number is that number.
        return math.ceil(self.pick / self.pick_delta - 1e-9)
