"""Weights as whole numbers of eight bits, one scale per output channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError

_LEVELS = 127
# Scales that are tried: the largest weight of a channel at 127, and clipped by up to a half.
_SHRINK = torch.linspace(0.5, 1.0, 51)


def quantise(weight: Tensor, energy: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The whole numbers and scales of the least squared error.

    Per output channel the scale is searched for that gives the smallest sum of
    energy * (w - q * scale)^2, q being w / scale rounded and clipped to -127 ... 127.

    Args:
        weight: (outputs, ...), floating point.
        energy: how much an error of each weight counts, of the shape of `weight` without its first
            axis; all alike by default.

    Returns:
        int8 of the weight's shape, and float32 (outputs,); the scale of a channel of zeros is 1.

    Raises:
        RegrowError: a weight or an energy is NaN or infinite.
    """
    for what, given in (("weights", weight), ("energies of their inputs", energy)):
        if given is not None and not bool(torch.isfinite(given).all()):
            raise RegrowError(
                f"the {what} are not all finite; load a sound checkpoint and batches."
            )
    rows = (weight if weight.ndim > 1 else weight.view(-1, 1)).detach().double().flatten(1)
    counts = torch.ones(rows.shape[1]) if energy is None else energy.double().reshape(-1)
    largest = rows.abs().amax(1) if rows.shape[1] else torch.zeros(len(rows))
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    scales = torch.ones(len(rows), dtype=torch.float64)
    for shrink in _SHRINK.flip(0):  # of equal errors the least clipping
        # The scale that is stored is the one that is judged.
        tried = torch.where(largest > 0, largest * shrink / _LEVELS, 1.0).float().double()
        whole = (rows / tried[:, None]).round().clamp(-_LEVELS, _LEVELS)
        error = ((rows - whole * tried[:, None]) ** 2 * counts).sum(1)
        better = error < best
        best, scales = torch.where(better, error, best), torch.where(better, tried, scales)
    whole = (rows / scales[:, None]).round().clamp(-_LEVELS, _LEVELS).to(torch.int8)
    return whole.view(weight.shape), scales.float()


def levels_of(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """A weight that has few magnitudes as whole numbers and a table of these, exactly.

    Args:
        weight: float32, of any shape.

    Returns:
        int8 of the weight's shape and the magnitudes, float32, ascending: a weight w is
        sign(z) magnitudes[|z| - 1], z its whole number, and 0 if z is 0. None where there are more
        than 127, where so many would take as much room as the weights, or any is not finite.
    """
    sizes = weight.detach().abs()
    magnitudes = sizes.unique()
    magnitudes = magnitudes[magnitudes > 0]
    nonzero = int((sizes > 0).sum())
    few = 0 < len(magnitudes) <= _LEVELS and 4 * len(magnitudes) < nonzero
    if weight.dtype != torch.float32 or not few or not bool(torch.isfinite(sizes).all()):
        return None
    whole = torch.searchsorted(magnitudes, sizes, right=True)
    return (whole * weight.detach().sign()).to(torch.int8), magnitudes


@torch.no_grad()
def input_energy(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """The mean square of what each weight of a convolution or linear layer is multiplied by.

    Args:
        model: in evaluation mode, on the CPU.
        batches: of inputs of the model, (B, ...).

    Returns:
        By weight name, a tensor of the weight's shape without its first axis. Of a grouped
        convolution it is the mean over the groups.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    hooks = []

    def watch(name: str, layer: nn.Conv2d | nn.Linear) -> None:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().float()
            if isinstance(layer, nn.Linear):
                flat = x.reshape(-1, layer.in_features)
                square = (flat**2).sum(0)
                seen = len(flat)
            else:
                per_channel = (x**2).sum((0, 2, 3)).view(layer.groups, -1).mean(0)
                square = per_channel[:, None, None].expand(layer.weight.shape[1:])
                seen = x.shape[0] * x.shape[2] * x.shape[3]
            sums[name] = sums.get(name, 0) + square
            counts[name] = counts.get(name, 0) + seen

        hooks.append(layer.register_forward_pre_hook(note))

    for prefix, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            watch(f"{prefix}.weight" if prefix else "weight", layer)
    try:
        for batch in batches:
            model(*batch) if isinstance(batch, (tuple, list)) else model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / counts[name] for name, total in sums.items()}
