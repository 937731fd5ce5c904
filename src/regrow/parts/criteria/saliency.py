"""Second-order saliency by squared gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need


@dataclass(frozen=True)
class Saliency:
    """Squared-gradient saliency E[(dL/dw)^2] w^2, the mean over batches.

    Up to a factor of 1/2 the loss increase of optimal brain damage with the empirical Fisher
    diagonal in place of the Hessian's.

    Source: LeCun et al. 1990, "Optimal brain damage", eq. 4; as the regrowth score of Liu and
    Sheng 2025 (arXiv 2511.11675).
    """

    needs = frozenset({Need("weight"), Need("gradient_square")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        squares = evidence[Need("gradient_square")]
        return {n: saliency(w, squares[n]) for n, w in evidence[Need("weight")].items()}


def saliency(weight: Tensor, gradient_square: Tensor) -> Tensor:
    """E[g^2] w^2 elementwise, in float32."""
    return weight.float().square() * gradient_square
