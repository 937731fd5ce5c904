"""Erdos-Renyi kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor

from regrow.core.budget import Budget
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.parts.allocate.apportion import apportion


@dataclass(frozen=True)
class ErdosRenyiKernel:
    """Density proportional to the sum over the product of the weight's extents, at most 1.

    Small layers stay denser. Layers that reach 1 are full, and the rest share what is left.

    Source: Evci et al. 2020, "Rigging the lottery", section 3 (ERK).
    """

    needs = frozenset[Need]()

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        shares = {w.name: pooled[w.name].numel() * sum(w.shape) / prod(w.shape) for w in weights}
        return apportion(shares, budget)
