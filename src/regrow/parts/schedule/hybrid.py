"""One deep cut, then a geometric tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.step import EPOCH, Step
from regrow.parts.schedule.cuts import check_cuts, density_at


@dataclass(frozen=True)
class Hybrid:
    """One deep cut to `first`, then `cuts` geometric ones to `sparsity` (also "few-shot").

    tail="original", as published: with r = 1 - (1 - (p - o))^(1/n), tail step i removes
    r (1 - r)^(i - 1) of the original count, which makes the tail nearly constant.
    tail="survivors": each tail step removes the same share 1 - ((1 - p) / (1 - o))^(1/n) of
    what is left.

    Source: arXiv 2508.13836 (2025), the few-shot / hybrid strategy.

    Raises:
        RegrowError: not 0 <= first <= sparsity < 1, no tail cut, or an unknown tail.
    """

    sparsity: float
    first: float
    cuts: int
    every: Step = EPOCH
    tail: Literal["original", "survivors"] = "original"

    def __post_init__(self) -> None:
        check_sparsity(self.first, "the first cut's sparsity")
        check_cuts(self.sparsity, self.cuts, self.first, self.every)
        if self.every.value < 1:
            raise RegrowError(f"the tail needs an interval of at least one step; got {self.every}.")
        if self.tail not in ("original", "survivors"):
            raise RegrowError(f"tail is 'original' or 'survivors'; got {self.tail!r}.")

    @property
    def sparsities(self) -> tuple[float, ...]:
        n = self.cuts
        if self.tail == "original":
            left = 1 - (self.sparsity - self.first)
            steps = [self.first + 1 - left ** (i / n) for i in range(1, n)]
        else:
            share = (1 - self.sparsity) / (1 - self.first)
            steps = [1 - (1 - self.first) * share ** (i / n) for i in range(1, n)]
        return (self.first, *steps, self.sparsity)

    @property
    def last(self) -> Step:
        return Step(self.every.value * (len(self.sparsities) - 1), self.every.unit)

    def target(self, step: Step) -> float | None:
        return density_at(self.sparsities, self.every, step)
