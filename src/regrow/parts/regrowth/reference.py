"""What a less sparse network kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.parts.criteria.random import uniform

_WEIGHT = Need("weight", "reference")


@dataclass(frozen=True)
class Reference:
    """A random choice among the entries that are alive in a less sparse reference network.

    Source: arXiv 2511.11675 (2025) and its authors' code, the "reference" rule.
    """

    needs = frozenset({_WEIGHT})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return {
            name: uniform(w, (*evidence.key, "regrowth", name)).masked_fill(w == 0, -torch.inf)
            for name, w in evidence[_WEIGHT].items()
        }
