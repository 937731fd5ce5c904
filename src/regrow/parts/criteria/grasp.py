"""Gradient signal preservation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need


@dataclass(frozen=True)
class Grasp:
    """Gradient signal w (Hg), signed: weights stay without which the gradient's norm would fall.

    To first order, removing w changes g'g / 2 by -w Hg; what would raise it most goes first.

    Source: Wang et al. 2020, "Picking winning tickets before training by preserving gradient flow",
    eq. 8 and algorithm 1.

    Departures: the logits are not divided by a temperature (200 there), since the user's loss
    shows none; H and g are of the mean loss of `batches` batches in place of ten samples a class.
    """

    needs = frozenset({Need("weight"), Need("hessian_gradient")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        products = evidence[Need("hessian_gradient")]
        return {n: w.float() * products[n] for n, w in evidence[Need("weight")].items()}
