"""Uniform, with the first and last layer spared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from torch import Tensor

from regrow.core.budget import Budget
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.parts.allocate.apportion import apportion


@dataclass(frozen=True)
class UniformPlus:
    """Uniform, but the first convolution stays dense and the last linear layer at least 20 %.

    Source: Gale et al. 2019, "The state of sparsity in deep neural networks", section 3.
    """

    needs = frozenset[Need]()

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        lower = dict(budget.lower)
        first = next((w.name for w in weights if w.kind == "conv"), None)
        last = next((w.name for w in reversed(weights) if w.kind == "linear"), None)
        if last is not None:
            lower[last] = max(
                lower[last], min(ceil(0.2 * pooled[last].numel()), budget.upper[last])
            )
        if first is not None:
            lower[first] = budget.upper[first]
        try:
            spared = Budget(budget.total, lower, budget.upper)
        except RegrowError as error:
            raise RegrowError(
                f"uniform_plus spares {first} and a fifth of {last}, which the sparsity does not "
                "allow; choose another allocation or a lower sparsity."
            ) from error
        return apportion({w.name: float(pooled[w.name].numel()) for w in weights}, spared)
