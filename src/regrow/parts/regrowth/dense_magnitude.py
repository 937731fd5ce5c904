"""Magnitude in the dense network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need

_WEIGHT = Need("weight", "dense")


@dataclass(frozen=True)
class DenseMagnitude:
    """Removed entries of the largest |w| in the dense network come back.

    Source: Han et al. 2015 for the score; as a regrowth rule ours.
    """

    needs = frozenset({_WEIGHT})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return {name: w.abs() for name, w in evidence[_WEIGHT].items()}
