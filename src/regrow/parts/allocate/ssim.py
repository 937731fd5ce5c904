"""More where the damage is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from regrow.core.budget import Budget
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.parts.allocate.apportion import apportion

DAMAGE = Need("damage")


@dataclass(frozen=True)
class SsimFill:
    """Fill the most damaged layer first: lowest similarity to the dense activations.

    Source: arXiv 2511.11675 (2025) and its authors' follow-up code, greedy allocation.
    """

    needs = frozenset({DAMAGE})

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        damage = evidence.damage or {}
        counts = dict(budget.lower)
        left = budget.total - sum(counts.values())
        for name in sorted(counts, key=lambda n: damage[n]):
            grown = min(left, budget.upper[name] - counts[name])
            counts[name] += grown
            left -= grown
        return counts


@dataclass(frozen=True)
class SsimProportional:
    """Share what returns in proportion to the damage, 1 - similarity.

    Source: arXiv 2511.11675 (2025) and its authors' follow-up code, proportional allocation.
    """

    needs = frozenset({DAMAGE})

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        damage = evidence.damage or {}
        room = Budget(
            budget.total - sum(budget.lower.values()),
            dict.fromkeys(budget.lower, 0),
            {n: budget.upper[n] - least for n, least in budget.lower.items()},
        )
        grown = apportion({w.name: 1.0 - damage[w.name] for w in weights}, room)
        return {n: budget.lower[n] + grown[n] for n in grown}
