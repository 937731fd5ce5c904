"""Empirical Fisher diagonal."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need


@dataclass(frozen=True)
class Fisher:
    """Empirical Fisher diagonal E[(dL/dw)^2] alone, without the weight.

    Squares are of batch-mean gradients; for the per-sample Fisher pass `data` with batches of
    one sample.

    Source: the element score of the study behind arXiv 2508.13836 (2025); Amari 1998 for the
    matrix.
    """

    needs = frozenset({Need("gradient_square")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return dict(evidence[Need("gradient_square")])
