"""Scale of the normalisation behind a unit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.parts.units.pooling import pooled

_WEIGHT = Need("weight")


@dataclass(frozen=True)
class BnScale:
    """Sum of |gamma| over the norms that a unit passes.

    Source: Liu et al. 2017 (network slimming), section 3.
    """

    needs = frozenset({_WEIGHT})

    def score(self, groups: tuple[Group, ...], evidence: Evidence) -> dict[str, Tensor]:
        scales = {
            name: w.abs()
            for name, w in evidence[_WEIGHT].items()
            if w.dim() == 1 and name.endswith("weight")
        }
        found = {}
        for group in groups:
            if not any(member.name in scales for member in group.members):
                raise RegrowError(
                    f"{group.name} passes no normalisation with a scale, so bn_scale cannot rank "
                    "it; choose another criterion or exclude the layer."
                )
            found[group.name] = pooled(group, scales)
        return found
