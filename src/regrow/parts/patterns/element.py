"""Single weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor


@dataclass(frozen=True)
class Element:
    """Single weights, unstructured.

    Source: Han et al. 2015.
    """

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Every weight fits."""

    def size(self, shape: tuple[int, ...]) -> int:
        return 1

    def capacity(self, shape: tuple[int, ...]) -> int:
        return prod(shape)

    def pool(self, scores: Tensor) -> Tensor:
        return scores.reshape(-1)

    def expand(self, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
        return keep.view(shape)
