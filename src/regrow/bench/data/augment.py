"""Random crops and mirror images of whole batches."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.core.errors import RegrowError, unknown

PADDINGS = ("reflect", "zero")


def random_crop(
    images: Tensor, pad: int, generator: torch.Generator, padding: str = "reflect"
) -> Tensor:
    """Pad every image by `pad` on each side and cut a window of the old size at random.

    Args:
        images: `(B, C, H, W)`, any dtype.
        pad: pixels; the window moves by up to this much each way, uniformly.
        generator: of the draws; its device need not be that of the images.
        padding: "reflect" (the edge pixel is not repeated) or "zero".

    Returns:
        a new tensor of the same shape and dtype.
    """
    _check_padding(images, pad, padding)
    draws = torch.randint(
        -pad, pad + 1, (2, len(images)), generator=generator, device=generator.device
    )
    shifts = _beside(images, draws)
    return shift(images, shifts[0], shifts[1], padding)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: `(B, C, H, W)`, any dtype.
        generator: of the draws; its device need not be that of the images.

    Returns:
        a new tensor of the same shape and dtype.
    """
    draws = torch.rand(len(images), generator=generator, device=generator.device)
    mirrored = _beside(images, draws < 0.5).view(-1, 1, 1, 1)
    return torch.where(mirrored, images.flip(-1), images)


def shift(images: Tensor, down: Tensor, right: Tensor, padding: str) -> Tensor:
    """Windows that have been moved over the padded images: `out[y, x] = in[y + down, x + right]`.

    Args:
        images: `(B, C, H, W)`, any dtype.
        down: rows by which each window moves down, int64 `(B,)`; less than H either way.
        right: columns by which it moves right, int64 `(B,)`; less than W either way.
        padding: what lies outside of an image: "reflect" or "zero".

    Returns:
        a new tensor of the same shape and dtype.
    """
    batch, channels, height, width = images.shape
    device = images.device
    rows = down.view(-1, 1) + torch.arange(height, device=device)
    columns = right.view(-1, 1) + torch.arange(width, device=device)
    moved = images[
        torch.arange(batch, device=device).view(-1, 1, 1, 1),
        torch.arange(channels, device=device).view(1, -1, 1, 1),
        _reflected(rows, height).view(batch, 1, height, 1),
        _reflected(columns, width).view(batch, 1, 1, width),
    ]
    if padding == "reflect":
        return moved
    inside = ((rows >= 0) & (rows < height)).view(batch, 1, height, 1) & (
        (columns >= 0) & (columns < width)
    ).view(batch, 1, 1, width)
    return torch.where(inside, moved, torch.zeros((), dtype=images.dtype, device=device))


def _beside(images: Tensor, draws: Tensor) -> Tensor:
    # A plain copy to the accelerator waits for all the work that is queued on it.
    return draws.to(images.device, non_blocking=images.is_cuda)


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside of 0 .. size - 1 mirrored at the first and last one."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()


def _check_padding(images: Tensor, pad: int, padding: str) -> None:
    if padding not in PADDINGS:
        raise unknown("padding", padding, PADDINGS)
    if images.ndim != 4 or not 0 <= pad < min(images.shape[-2:]):
        raise RegrowError(
            f"pad is {pad} for images {tuple(images.shape)}: give images (B, C, H, W) and a pad "
            "of at least 0 and less than H and W."
        )
