"""Gradient at removed positions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need

_GRADIENT = Need("gradient")


@dataclass(frozen=True)
class GradientMagnitude:
    """Removed entries of the largest |dL/dw| in the sparse network as it stands come back.

    Source: Evci et al. 2020, "Rigging the lottery", grow criterion.
    """

    needs = frozenset({_GRADIENT})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return {name: g.abs() for name, g in evidence[_GRADIENT].items()}
