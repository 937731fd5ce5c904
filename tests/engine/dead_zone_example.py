"""The dead-zone quantiser as its authors compose it, of functions that pass gradients on."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def passed(value: Tensor, given: Tensor) -> Tensor:
    """The value, with the gradient of what was given."""
    return given + (value - given).detach()


def straight_through(w: Tensor, width: Tensor, bits: Tensor | None, most: int) -> Tensor:
    """What is used in the place of w, differentiable in w, width and bits."""
    a = w.detach().abs().flatten().sort().values[math.ceil(0.99 * w.numel()) - 1]
    d = 2 * a * (1 - width.tanh().abs())
    count = torch.tensor(float(most), dtype=w.dtype)
    if bits is not None:
        given = (most - 2) * bits.tanh().abs() + 2
        count = passed(given.round(), given)
    top = 2 ** (count - 1) - 1
    s = (a - d / 2) / (top - 0.5) + 1e-8
    h = d / 2 - s / 2
    rest = w.abs() - h
    x = w.sign() * passed(rest.clamp(min=0), rest) / s
    z = passed(x.round().clamp(-top.detach(), top.detach()), x)
    return s * z + h * z.sign()
