"""The same density everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from regrow.core.budget import Budget
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.parts.allocate.apportion import apportion


@dataclass(frozen=True)
class Uniform:
    """The same density in every layer.

    Source: Zhu and Gupta 2017, "To prune, or not to prune".
    """

    needs = frozenset[Need]()

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        return apportion({w.name: float(pooled[w.name].numel()) for w in weights}, budget)
