"""Magnitude."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need


@dataclass(frozen=True)
class Magnitude:
    """Absolute value |w|, the plain baseline.

    Source: Han et al. 2015, "Learning both weights and connections".
    """

    needs = frozenset({Need("weight")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return {name: w.abs() for name, w in evidence[Need("weight")].items()}
