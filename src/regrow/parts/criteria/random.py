"""Random scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.core.rng import generator


@dataclass(frozen=True)
class Random:
    """Uniform random scores: the control that every criterion must beat.

    Source: the random baseline of Blalock et al. 2020, "What is the state of neural network
    pruning?".
    """

    needs = frozenset({Need("weight")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return {
            name: uniform(w, (*evidence.key, "criterion", name))
            for name, w in evidence[Need("weight")].items()
        }


def uniform(like: Tensor, key: tuple[object, ...]) -> Tensor:
    """Uniform numbers in [0, 1) of a tensor's shape, on its device, from a key."""
    return torch.rand(like.shape, generator=generator(*key), dtype=torch.float64).to(like.device)
