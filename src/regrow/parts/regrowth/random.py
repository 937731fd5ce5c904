"""Random regrowth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.parts.criteria.random import uniform

_WEIGHT = Need("weight")


@dataclass(frozen=True)
class RandomRegrowth:
    """A random choice among the removed entries: the control of every regrowth rule.

    Source: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive
    sparse connectivity" (SET).
    """

    needs = frozenset({_WEIGHT})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return {
            name: uniform(w, (*evidence.key, "regrowth", name))
            for name, w in evidence[_WEIGHT].items()
        }
