"""A criterion whose scores are put in the wrong places: the check that its places matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Criterion
from regrow.core.rng import generator


@dataclass(frozen=True)
class Shuffled:
    """Another criterion's scores, permuted at random within each weight.

    Layers keep as many weights as by that criterion, but random ones. What is no better than this
    has learned at most how many weights a layer needs.

    Attributes:
        of: the criterion's name.

    Source: Su et al. 2020, "Sanity-checking pruning methods: random tickets can win the jackpot".

    Raises:
        RegrowError: it is not known, or shuffles itself.
    """

    of: str = "magnitude"

    def __post_init__(self) -> None:
        if self.of == "shuffled":
            raise RegrowError("to shuffle twice is to shuffle once; name another criterion.")
        self._criterion()  # refuses what is not known

    @property
    def needs(self) -> frozenset[Need]:
        return self._criterion().needs

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        found = {}
        for name, scores in self._criterion().score(evidence).items():
            source = generator(*evidence.key, "shuffled", name)
            order = torch.randperm(scores.numel(), generator=source).to(scores.device)
            found[name] = scores.flatten()[order].view(scores.shape)
        return found

    def _criterion(self) -> Criterion:
        from regrow.parts.criteria import CRITERIA  # the table, which has this one too

        return CRITERIA.build(self.of)
