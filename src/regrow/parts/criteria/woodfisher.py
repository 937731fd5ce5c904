"""The cost of removing a weight when the others make up for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.blocks import from_blocks, to_blocks
from regrow.core.evidence import Evidence, InverseFisher, Need


@dataclass(frozen=True)
class WoodFisher:
    """Second-order statistic rho_q = w_q^2 / [F^-1]_qq, with the inverse empirical Fisher.

    Half of it is the rise of the quadratic loss 1/2 d^T F d when w_q is removed and the other
    weights of its block move as well as they can. F = lambda I + (1/N) sum_n g_n g_n^T, over
    blocks of consecutive entries of a flattened weight; g_n is the mean gradient of one batch. F
    is collected anew at every event, of the network as it is then.

    Attributes:
        gradients: N.
        chunk: entries of a block; None takes the most that fit `memory_gib`.
        damping: lambda.
        memory_gib: the most memory that collecting may take.

    Source: Singh and Alistarh 2020, "WoodFisher: Efficient second-order approximation for neural
    network compression", sec. 4; Hassibi and Stork 1992 for the statistic.

    Raises:
        RegrowError: a value is out of its range.
    """

    gradients: int = 400
    chunk: int | None = None
    damping: float = 1e-5
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        self._inverse()  # refuses what is out of range

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need("weight"), self._inverse()})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        inverses = evidence[self._inverse()]
        return {n: statistic(w, inverses[n]) for n, w in evidence[Need("weight")].items()}

    def _inverse(self) -> Need:
        how = InverseFisher(self.gradients, self.chunk, self.damping, self.memory_gib)
        return Need("inverse_fisher", how=how)


def statistic(weight: Tensor, inverse: Tensor) -> Tensor:
    """w_q^2 / [F^-1]_qq elementwise.

    Args:
        weight: any shape.
        inverse: its blocks, (blocks, size, size).
    """
    diagonal = inverse.diagonal(dim1=1, dim2=2)
    blocks = to_blocks(weight.to(inverse.dtype), diagonal.shape[1])
    return from_blocks(blocks.square() / diagonal, weight.shape)
