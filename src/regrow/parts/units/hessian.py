"""Change of the loss when a unit is removed, to second order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.parts.units.pooling import pooled

_WEIGHT, _SQUARE = Need("weight"), Need("gradient_square")


@dataclass(frozen=True)
class Hessian:
    """sum of g^2 w^2 / 2 over what computes a unit, g^2 standing for the Hessian's diagonal.

    Source: LeCun et al. 1990, eq. 4, with the empirical Fisher diagonal (squares of batch-mean
    gradients; for per-sample ones pass batches of one sample).
    """

    needs = frozenset({_WEIGHT, _SQUARE})

    def score(self, groups: tuple[Group, ...], evidence: Evidence) -> dict[str, Tensor]:
        squares = evidence[_SQUARE]
        changes = {n: squares[n] * w.float() ** 2 / 2 for n, w in evidence[_WEIGHT].items()}
        return {group.name: pooled(group, changes, group.produced) for group in groups}
