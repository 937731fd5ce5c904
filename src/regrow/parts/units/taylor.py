"""Change of the loss when a unit is removed, to first order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.parts.units.pooling import pooled

_WEIGHT, _GRADIENT = Need("weight"), Need("gradient")


@dataclass(frozen=True)
class UnitTaylor:
    """|sum g w| over what computes a unit: the first-order change of the loss without it.

    What reads a unit is not counted: once the unit is zero it has no say.

    Attributes:
        summed: add up |g w| of the entries instead, so that they cannot cancel.

    Source: Molchanov et al. 2019, eq. 8 (squares there; the order is the same).
    """

    summed: bool = False

    needs = frozenset({_WEIGHT, _GRADIENT})

    def score(self, groups: tuple[Group, ...], evidence: Evidence) -> dict[str, Tensor]:
        gradients = evidence[_GRADIENT]
        products = {name: gradients[name] * w.float() for name, w in evidence[_WEIGHT].items()}
        if self.summed:
            products = {name: product.abs() for name, product in products.items()}
        return {group.name: pooled(group, products, group.produced).abs() for group in groups}
