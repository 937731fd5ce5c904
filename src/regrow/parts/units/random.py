"""No knowledge at all: the control."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.core.rng import generator


@dataclass(frozen=True)
class RandomUnits:
    """Scores drawn at random.

    Source: Blalock et al. 2020 ask for it in every comparison.
    """

    needs = frozenset[Need]()

    def score(self, groups: tuple[Group, ...], evidence: Evidence) -> dict[str, Tensor]:
        return {
            group.name: torch.rand(len(group), generator=generator(*evidence.key, group.name))
            for group in groups
        }
