"""How much a unit has to say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.parts.units.pooling import scored

_ACTIVATION = Need("activation")


@dataclass(frozen=True)
class Activation:
    """Mean |output| of the layers that compute a unit, over the data and all positions.

    Source: Hu et al. 2016 count zeros behind the activation; Molchanov et al. 2017, section 2.2,
    the mean activation.
    """

    needs = frozenset({_ACTIVATION})

    def score(self, groups: tuple[Group, ...], evidence: Evidence) -> dict[str, Tensor]:
        outputs = evidence[_ACTIVATION]
        found = {}
        for group in groups:
            total = torch.zeros(len(group))
            for member in scored(group, [m for m in group.produced if m.name in outputs]):
                total += outputs[member.name][member.indices].sum(1).cpu()
            found[group.name] = total
        return found
