"""N of M."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from regrow.core.errors import RegrowError


@dataclass(frozen=True)
class NofM:
    """At most n of every m consecutive inputs of an output, such as 2:4.

    Groups run along the input dimension (dim 1), for each output and kernel position, which is
    the order that sparse tensor cores read. At density n/m every group holds exactly n; below it,
    at most n; above it nothing fits.

    Source: Mishra et al. 2021, "Accelerating sparse deep neural networks", section 3.

    Raises:
        RegrowError: not 0 < n <= m.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.m:
            raise RegrowError(f"an n:m pattern needs 0 < n <= m; got {self.n}:{self.m}.")

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        if shape[1] % self.m:
            raise RegrowError(
                f"{name} of shape {shape}: its {shape[1]} inputs are no multiple of {self.m}, so "
                f"{self.n}:{self.m} does not fit; exclude the layer."
            )

    def size(self, shape: tuple[int, ...]) -> int:
        return 1

    def capacity(self, shape: tuple[int, ...]) -> int:
        return prod(shape) // self.m * self.n

    def pool(self, scores: Tensor) -> Tensor:
        # A unit is one weight; all but the n best of a group are forbidden. Groups go last, so
        # the order of the stable sort breaks ties towards the lower input index.
        grouped = scores.movedim(1, -1).unflatten(-1, (-1, self.m))
        order = grouped.argsort(dim=-1, descending=True, stable=True)
        allowed = torch.zeros_like(grouped, dtype=torch.bool)
        allowed.scatter_(-1, order[..., : self.n], True)
        pooled = grouped.masked_fill(~allowed, -torch.inf)
        return pooled.flatten(-2).movedim(-1, 1).reshape(-1)

    def expand(self, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
        return keep.view(shape)
