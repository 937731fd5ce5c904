"""Blocks of the inverse of the damped empirical Fisher, and what they cost beforehand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from regrow.core.blocks import layout, per_slice, slices, to_blocks
from regrow.core.errors import RegrowError
from regrow.core.evidence import InverseFisher, Statistics
from regrow.model.collect import LossFn, each_gradient
from regrow.model.inventory import Inventory

LARGEST = 512
"""The largest block that is chosen by itself: beyond it the inverse is what takes the time."""

_GROUP = 8
_GIB = 2**30


def fisher_bytes(sizes: Sequence[int], chunk: int, width: int = 4) -> int:
    """The most memory that `outer_products` and `invert` hold at a time, in bytes.

    All blocks, with either a group of gradients or the working set of the inversion; the
    network's own gradients and activations are not among them.

    Args:
        sizes: entries of each weight.
        chunk: entries of a block.
        width: bytes of a number: 4, or 8 for weights in float64.
    """
    layouts = [layout(numel, chunk) for numel in sizes]
    blocks = sum(count * size**2 for count, size in layouts) * width
    group = sum(count * size for count, size in layouts) * width * _GROUP
    # A slice of blocks and its factor, then the factor and the inverse, in float64.
    working = max(min(count, per_slice(size)) * size**2 for count, size in layouts) * 8 * 2
    return blocks + max(group, working)


def chunk_for(entries: Inventory, how: InverseFisher, width: int = 4) -> int:
    """The chunk asked for, or the largest power of two up to `LARGEST` that fits the memory.

    Raises:
        RegrowError: it does not fit, or none does.
    """
    sizes = [entry.numel for entry in entries]
    tried = (how.chunk,) if how.chunk else [LARGEST >> i for i in range(LARGEST.bit_length())]
    for chunk in tried:
        if fisher_bytes(sizes, chunk, width) <= how.memory_gib * _GIB:
            return chunk
    least = fisher_bytes(sizes, tried[-1], width) / _GIB
    raise RegrowError(
        f"the inverse Fisher of {entries.total:,} weights in blocks of {tried[-1]} takes "
        f"{least:.3g} GiB, more than memory_gib={how.memory_gib:g}; raise memory_gib to at least "
        f"that{', or lower chunk' if how.chunk else ''}."
    )


def outer_products(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    loss_fn: LossFn,
    batches: Iterable[object],
    chunk: int,
    masks: Mapping[str, Tensor] | None = None,
    *,
    statistics: Statistics = "running",
) -> tuple[dict[str, Tensor], int]:
    """Blocks of sum_n g_n g_n^T, and the number of gradients.

    g_n is the gradient of the user's own loss on one batch, so with labels as they are; where it
    is a mean over the batch, so is g_n. Gradients of removed entries count as zero. A few
    gradients at a time go into all blocks as one product, since the blocks are far larger than
    any cache.

    Args:
        model, weights, loss_fn, batches, statistics: as for `gradients`.
        chunk: entries of a block.
        masks: the present keep masks; None: nothing is removed.

    Returns:
        by name (blocks, size, size), in float32, or float64 where the weight is; and N.

    Raises:
        RegrowError: as `gradients`.
    """
    layouts = {name: layout(weight.numel(), chunk) for name, weight in weights.items()}
    sums, group = {}, {}
    for name, (count, size) in layouts.items():
        like = torch.empty(0, dtype=wide(weights[name]), device=weights[name].device)
        sums[name] = like.new_zeros(count, size, size)
        group[name] = like.new_zeros(_GROUP, count * size)
    filled = seen = 0
    with contextlib.closing(
        each_gradient(model, weights, loss_fn, batches, statistics=statistics)
    ) as found:
        for grads in found:
            for name, weight in weights.items():
                row = group[name][filled, : weight.numel()].view(weight.shape)
                grad = grads[name]
                row.zero_() if grad is None else row.copy_(grad)
            filled, seen = filled + 1, seen + 1
            if filled == _GROUP:
                _add(sums, group, filled)
                filled = 0
    if filled:
        _add(sums, group, filled)
    for name, mask in (masks or {}).items():
        blocks = sums[name]
        alive = to_blocks(mask.to(blocks.device), blocks.shape[-1])
        blocks.mul_(alive.unsqueeze(1)).mul_(alive.unsqueeze(2))
    return sums, seen


def invert(sums: Mapping[str, Tensor], gradients: int, damping: float) -> None:
    """Turn blocks of sum_n g_n g_n^T into blocks of (damping I + 1/N sum_n g_n g_n^T)^-1, in place.

    By Cholesky factors in float64, a slice of blocks at a time. Sums of large gradients hide a
    small damping in their rounding: a block's damping is at least 16 units of rounding of its
    largest diagonal entry, 2e-6 of that for sums in float32.

    Args:
        sums: by name, (blocks, size, size).
        gradients: N, over all ranks.
        damping: lambda.

    Raises:
        RegrowError: a block is not positive definite to float64's precision, or not finite.
    """
    for name, blocks in sums.items():
        for (part,) in slices(blocks):
            _invert(part, name, gradients, damping)


def _invert(part: Tensor, name: str, gradients: int, damping: float) -> None:
    matrix = part.double().div_(gradients)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    rounding = diagonal.amax(dim=1, keepdim=True) * (16 * torch.finfo(part.dtype).eps)
    diagonal.add_(rounding.clamp_min_(damping))
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool(info.any()) or not bool(factor.diagonal(dim1=1, dim2=2).isfinite().all()):
        raise RegrowError(
            f"{name}: the empirical Fisher, with entries up to {float(diagonal.amax()):.3g}, "
            f"cannot be inverted with damping={damping:g}; raise the damping, or look for "
            "gradients that are not finite."
        )
    del matrix, diagonal
    part.copy_(torch.cholesky_inverse(factor))


def wide(weight: Tensor) -> torch.dtype:
    """The type in which a weight's Fisher is summed up."""
    return torch.promote_types(weight.dtype, torch.float32)


def _add(sums: Mapping[str, Tensor], group: Mapping[str, Tensor], filled: int) -> None:
    for name, blocks in sums.items():
        rows = group[name][:filled].view(filled, *blocks.shape[:2])
        blocks.baddbmm_(rows.permute(1, 2, 0), rows.permute(1, 0, 2))
