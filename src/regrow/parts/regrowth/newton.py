"""What a removed weight would gain at its best value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.evidence import Evidence, Need

_GRADIENT, _SQUARE = Need("gradient"), Need("gradient_square")


@dataclass(frozen=True)
class Newton:
    """Removed entries come back whose best value lowers the loss most: g^2 / (2 h), at -g / h.

    h is the empirical Fisher diagonal E[g^2] over batches, g the mean gradient of the sparse
    network as it stands; so the score is, up to a factor, how far the gradient stands out of its
    own noise, and layers with large gradients have no advantage.

    Source: ours; the growing counterpart of LeCun et al. 1990, "Optimal brain damage", eq. 4.
    """

    needs = frozenset({_GRADIENT, _SQUARE})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        squares = evidence[_SQUARE]
        least = torch.finfo(torch.float32).tiny
        return {
            name: g.float().square() / squares[name].clamp_min(least)
            for name, g in evidence[_GRADIENT].items()
        }
