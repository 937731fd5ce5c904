"""Layer-adaptive magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.evidence import Evidence, Need


@dataclass(frozen=True)
class Lamp:
    """Layer-adaptive magnitude: w_u^2 over the sum of all w_v^2 >= w_u^2 of the layer.

    Inside a layer the order is that of |w|; across layers the scores are comparable, and the
    largest of each layer scores 1, so that a global cut cannot empty a layer.

    Source: Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", eq. 2.
    """

    needs = frozenset({Need("weight")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return {name: lamp(w) for name, w in evidence[Need("weight")].items()}


def lamp(weight: Tensor) -> Tensor:
    """LAMP scores of one layer; of equal weights the one of lower flat index counts as larger.

    Args:
        weight: any shape, zeros allowed (they score 0).
    """
    squares = weight.detach().double().square().reshape(-1)
    order = squares.argsort(descending=True, stable=True)
    ranked = squares[order]
    # The sum over all that are at least as large, in descending order, is a running sum.
    scores = ranked / ranked.cumsum(0).clamp_min(torch.finfo(torch.float64).tiny)
    out = torch.empty_like(scores)
    out[order] = scores
    return out.view(weight.shape)
