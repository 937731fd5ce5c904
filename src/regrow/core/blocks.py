"""Consecutive blocks of a flattened weight: how block-diagonal matrices are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SLICE = 2**22


def layout(numel: int, chunk: int) -> tuple[int, int]:
    """How many blocks a weight of `numel` entries has, and how many entries each.

    The last block may reach beyond the weight; a weight shorter than `chunk` is one block.
    """
    size = min(chunk, numel)
    return -(-numel // size), size


def to_blocks(tensor: Tensor, size: int) -> Tensor:
    """A tensor as (blocks, size), in flat order; zeros (or False) fill up the last block."""
    flat = tensor.reshape(-1)
    return F.pad(flat, (0, -flat.numel() % size)).view(-1, size)


def from_blocks(blocks: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of `to_blocks` for a tensor of a shape."""
    return blocks.reshape(-1)[: torch.Size(shape).numel()].view(torch.Size(shape))


def per_slice(size: int) -> int:
    """How many (size, size) blocks are worked on at a time in float64: 32 MiB of them."""
    return max(1, _SLICE // size**2)


def slices(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of a few blocks at a time, the first tensor being (blocks, size, size)."""
    few = per_slice(tensors[0].shape[-1])
    yield from zip(*(tensor.split(few) for tensor in tensors), strict=True)
