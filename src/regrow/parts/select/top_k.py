"""The largest scores."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regrow.core.topk import largest


@dataclass(frozen=True)
class TopK:
    """The units of the largest scores, ties to the lower flat index.

    Source: -
    """

    def select(self, pooled: Tensor, count: int) -> Tensor:
        return largest(pooled, count)
