"""One ranking over all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from regrow.core.budget import Budget
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.core.topk import count_largest


@dataclass(frozen=True)
class Global:
    """The largest scores over all layers together, between each layer's bounds.

    Of each layer the `lower` best are in and all but the `upper` best are out; the rest compete
    in one ranking, ties going to the earlier layer and index. For regrowth this is the global
    ranking of removed entries.

    Source: Han et al. 2015; bounds are ours.
    """

    needs = frozenset[Need]()

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        fixed: dict[str, int] = {}
        while True:
            free = [w.name for w in weights if w.name not in fixed]
            rest = budget.total - sum(fixed.values())
            won = dict(
                zip(free, count_largest([pooled[n] for n in free], rest), strict=True)
                if free
                else ()
            )
            low = {n for n in free if won[n] < budget.lower[n]}
            high = {n for n in free if won[n] > budget.upper[n]}
            if not low and not high:
                return {w.name: {**fixed, **won}[w.name] for w in weights}
            # Clipping to the bounds keeps too much or too little, which tells in which direction
            # the threshold must move, and so which of the two groups is settled.
            lacking = sum(budget.lower[n] - won[n] for n in low)
            excess = sum(won[n] - budget.upper[n] for n in high)
            if lacking >= excess:
                fixed |= {n: budget.lower[n] for n in low}
            if excess >= lacking:
                fixed |= {n: budget.upper[n] for n in high}
