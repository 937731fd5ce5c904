"""Blocks of the weight matrix."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from regrow.core.errors import RegrowError


@dataclass(frozen=True)
class Block:
    """Tiles of rows x columns of the weight as a matrix (out, in * kernel).

    0 means the whole extent: rows=1, columns=0 keeps or removes whole rows (output channels),
    rows=0, columns=1 whole columns. A tile scores the mean of its weights' scores.

    Source: Narang et al. 2017, "Block-sparse recurrent neural networks".

    Raises:
        RegrowError: an extent is negative.
    """

    rows: int = 4
    columns: int = 1

    def __post_init__(self) -> None:
        if self.rows < 0 or self.columns < 0:
            raise RegrowError(f"a block's extents are >= 0; got {self.rows} x {self.columns}.")

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        height, width = shape[0], prod(shape[1:])
        rows, columns = self._tile(shape)
        if height % rows or width % columns:
            raise RegrowError(
                f"{name} as a {height} x {width} matrix is not covered by tiles of {rows} x "
                f"{columns}; exclude the layer or choose extents that divide it."
            )

    def size(self, shape: tuple[int, ...]) -> int:
        rows, columns = self._tile(shape)
        return rows * columns

    def capacity(self, shape: tuple[int, ...]) -> int:
        return prod(shape) // self.size(shape)

    def pool(self, scores: Tensor) -> Tensor:
        tiles = self._tiles(scores.reshape(scores.shape[0], -1), tuple(scores.shape))
        # Infinite scores are orders, not numbers: one +inf makes a tile first, and -inf entries
        # (removed already) do not count, so that a tile of nothing else is forbidden.
        finite = tiles.isfinite()
        count = finite.sum(-1)
        total = torch.where(finite, tiles, 0).sum(-1, dtype=torch.float64)
        mean = torch.where(count == 0, -torch.inf, total / count.clamp_min(1))
        return torch.where((tiles == torch.inf).any(-1), torch.inf, mean)

    def expand(self, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
        rows, columns = self._tile(shape)
        grid = keep.view(shape[0] // rows, -1)
        wide = grid.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        return wide.reshape(shape)

    def _tile(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return self.rows or shape[0], self.columns or prod(shape[1:])

    def _tiles(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        rows, columns = self._tile(shape)
        high, wide = matrix.shape[0] // rows, matrix.shape[1] // columns
        return matrix.view(high, rows, wide, columns).transpose(1, 2).reshape(high * wide, -1)
