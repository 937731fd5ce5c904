"""Optimal brain surgeon's update of the survivors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.blocks import from_blocks, slices, to_blocks
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, InverseFisher, Need


@dataclass(frozen=True)
class Surgeon:
    """Moves the survivors so that the quadratic loss 1/2 d^T F d rises least.

    Of the entries S that are cut, in each block of F: the published sum of updates for one weight,
    d = -F^-1 sum_{q in S} (w_q / [F^-1]_qq) e_q, or the minimiser under d_S = -w_S,
    d = -F^-1_{:,S} (F^-1_SS)^-1 w_S. Either times `scale`, at survivors only. The statistics are
    those of the event: an inverse is collected anew for each and never used again. The optimiser's
    state of the survivors stays as it is, momentum included.

    Attributes:
        joint: the minimiser instead of the sum.
        scale: alpha, how far to go; 0 moves nothing.
        gradients, chunk, damping, memory_gib: of the inverse Fisher, as for the criterion
            "woodfisher"; one plan has one of them.

    Source: Singh and Alistarh 2020, "WoodFisher: Efficient second-order approximation for neural
    network compression", sec. 4; the joint form Hassibi and Stork 1992, extended to
    several weights.

    Raises:
        RegrowError: a value is out of its range.
    """

    joint: bool = False
    scale: float = 1.0
    gradients: int = 400
    chunk: int | None = None
    damping: float = 1e-5
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        self._inverse()  # refuses what is out of range
        if not 0 <= self.scale < math.inf:
            raise RegrowError(f"scale={self.scale!r} multiplies the update and is not below 0.")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need("weight"), self._inverse()})

    def delta(
        self, evidence: Evidence, before: Mapping[str, Tensor], keep: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        found = {}
        weights, inverses = evidence[Need("weight")], evidence[self._inverse()]
        for name, stays in keep.items():
            weight, inverse = weights[name], inverses[name]
            size = inverse.shape[-1]
            cut = to_blocks(before[name] & ~stays, size)
            values = to_blocks(weight.to(inverse.dtype), size)
            if self.joint:
                forces = _joint(inverse, values, cut, name)
            else:
                forces = values / inverse.diagonal(dim1=1, dim2=2) * cut
            moved = torch.bmm(inverse, forces.unsqueeze(2)).squeeze(2).mul_(-self.scale)
            found[name] = from_blocks(moved, weight.shape).masked_fill_(~stays, 0)
        return found

    def _inverse(self) -> Need:
        how = InverseFisher(self.gradients, self.chunk, self.damping, self.memory_gib)
        return Need("inverse_fisher", how=how)


def _joint(inverse: Tensor, values: Tensor, cut: Tensor, name: str) -> Tensor:
    """(F^-1_SS)^-1 w_S in S and 0 elsewhere, (blocks, size), in float64 a few blocks at a time."""
    parts = slices(inverse, values, cut)
    return torch.cat([_solved(part, w, s, name) for part, w, s in parts]).to(inverse.dtype)


def _solved(inverse: Tensor, values: Tensor, cut: Tensor, name: str) -> Tensor:
    # With rows and columns outside S those of the identity, all blocks are of one size.
    matrix = inverse.to(torch.float64, copy=True).mul_(cut.unsqueeze(1)).mul_(cut.unsqueeze(2))
    matrix.diagonal(dim1=1, dim2=2).add_(~cut)
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool(info.any()):
        raise RegrowError(
            f"{name}: the inverse Fisher of what is cut is not positive definite; raise the "
            "damping, or take the sum of single updates."
        )
    return torch.cholesky_solve((values * cut).double().unsqueeze(2), factor).squeeze(2)
