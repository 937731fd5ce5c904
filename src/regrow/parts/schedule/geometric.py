"""Equal shares of the survivors."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.core.step import EPOCH, Step
from regrow.parts.schedule.cuts import check_cuts, density_at


@dataclass(frozen=True)
class Geometric:
    """The same share of the survivors at every cut: density d_0 (d / d_0)^(i / n) after cut i.

    Source: arXiv 2508.13836 (2025), q = 1 - (1 - p)^(1 / n), p_i = q (1 - q)^(i - 1).
    """

    sparsity: float
    cuts: int
    every: Step = EPOCH
    initial: float = 0.0

    def __post_init__(self) -> None:
        check_cuts(self.sparsity, self.cuts, self.initial, self.every)

    @property
    def sparsities(self) -> tuple[float, ...]:
        first, last = 1 - self.initial, 1 - self.sparsity
        steps = [1 - first * (last / first) ** (i / self.cuts) for i in range(1, self.cuts)]
        return (*steps, self.sparsity)

    @property
    def last(self) -> Step:
        return Step(self.every.value * (len(self.sparsities) - 1), self.every.unit)

    def target(self, step: Step) -> float | None:
        return density_at(self.sparsities, self.every, step)
