"""Equal steps."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.core.step import EPOCH, Step
from regrow.parts.schedule.cuts import check_cuts, density_at


@dataclass(frozen=True)
class Constant:
    """Equal steps of the original count: cut i of n reaches s_0 + (s - s_0) i / n.

    Source: arXiv 2508.13836 (2025), p_i = p / n.
    """

    sparsity: float
    cuts: int
    every: Step = EPOCH
    initial: float = 0.0

    def __post_init__(self) -> None:
        check_cuts(self.sparsity, self.cuts, self.initial, self.every)

    @property
    def sparsities(self) -> tuple[float, ...]:
        span = self.sparsity - self.initial
        steps = [self.initial + span * i / self.cuts for i in range(1, self.cuts)]
        return (*steps, self.sparsity)

    @property
    def last(self) -> Step:
        return Step(self.every.value * (len(self.sparsities) - 1), self.every.unit)

    def target(self, step: Step) -> float | None:
        return density_at(self.sparsities, self.every, step)
