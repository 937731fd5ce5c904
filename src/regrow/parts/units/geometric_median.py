"""How well the others of a group can stand in for a unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.parts.units.pooling import scored

_WEIGHT = Need("weight")


@dataclass(frozen=True)
class GeometricMedian:
    """Sum of a filter's distances to all others of its layer, added up over a group's layers.

    The least is the filter nearest to the geometric median, which the others can replace.

    Source: He et al. 2019 (FPGM), eq. 6.
    """

    needs = frozenset({_WEIGHT})

    def score(self, groups: tuple[Group, ...], evidence: Evidence) -> dict[str, Tensor]:
        weights = evidence[_WEIGHT]
        found = {}
        for group in groups:
            total = torch.zeros(len(group))
            filters = [m for m in group.produced if m.name in weights and weights[m.name].dim() > 1]
            for member in scored(group, filters):
                # Of a transposed convolution outputs are not the first dimension.
                rows = weights[member.name].float().movedim(member.dim, 0).flatten(1)
                flat = rows[member.indices].flatten(1)
                total += torch.cdist(flat, flat).sum(1).cpu()
            found[group.name] = total
        return found
