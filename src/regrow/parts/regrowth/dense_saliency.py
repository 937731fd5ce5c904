"""Saliency in the dense network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.parts.criteria.saliency import saliency

_WEIGHT, _SQUARE = Need("weight", "dense"), Need("gradient_square", "dense")


@dataclass(frozen=True)
class DenseSaliency:
    """Removed entries of the largest E[(dL/dw)^2] w^2 in the dense network come back.

    Source: arXiv 2511.11675 (2025) and its authors' code.
    """

    needs = frozenset({_WEIGHT, _SQUARE})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        squares = evidence[_SQUARE]
        return {name: saliency(w, squares[name]) for name, w in evidence[_WEIGHT].items()}
