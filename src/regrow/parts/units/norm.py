"""Size of all weights of a unit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.parts.units.pooling import pooled

_WEIGHT = Need("weight")


@dataclass(frozen=True)
class Norm:
    """p-norm of all that a unit has in its group: (sum |w|^p)^(1/p).

    Attributes:
        p: 1 or 2.
        produced: count only what computes the unit (its filter, scale and shift), as filter norms
            do, rather than what reads it too.

    Source: Li et al. 2017 (filters); Fang et al. 2023, eq. 4 (groups).
    """

    p: int = 2
    produced: bool = False

    needs = frozenset({_WEIGHT})

    def __post_init__(self) -> None:
        if self.p not in (1, 2):
            raise RegrowError(f"p of a norm is 1 or 2; got {self.p!r}.")

    def score(self, groups: tuple[Group, ...], evidence: Evidence) -> dict[str, Tensor]:
        powers = {name: w.abs() ** self.p for name, w in evidence[_WEIGHT].items()}
        return {
            group.name: pooled(group, powers, group.produced if self.produced else None)
            ** (1 / self.p)
            for group in groups
        }
