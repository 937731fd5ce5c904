"""A quantiser with a dead zone around zero, whose width and bits are learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.protocols import Number

_SPAN = 0.99  # of the magnitudes lie within the largest level


@dataclass(frozen=True)
class DeadZone:
    """Weights rounded to 2 Q + 1 levels, zero wherever |w| is below half of a learned width.

    Of a layer's trained weights w, with a the 99th percentile of |w| and t, u learned:

        d = 2 a (1 - |tanh t|)                        width of the dead zone
        B = bits, or round((bits - 2) |tanh u| + 2) where bits are learned
        Q = 2^(B - 1) - 1
        s = (a - d / 2) / (Q - 1/2) + 1e-8            step
        h = d / 2 - s / 2                             shift
        z = clip(round(sign(w) max(|w| - h, 0) / s), -Q, Q)
        used = s z + h sign(z)

    so that a weight is used as zero exactly if |w| < d / 2, whatever B is. Rounding, clipping, the
    maximum and B's rounding pass gradients on as they are: the trained weights get the gradient of
    those that are used, t and u that of s and h. What makes t small, and so zeros, is its weight
    decay; the loss pulls the other way.

    Attributes:
        bits: of each weight, 2 to 8; the most where they are learned.
        learn_bits: each layer learns its own, from `bits` down to 2.
        decay: of t. Against a steady pull t stays at about 1 / decay, which bounds the sparsity
            from below: 0.46 of normally distributed weights at 1, 0.89 at 2.5, 0.95 at 4.
        bits_decay: of u.
        lr: of t and u under AdamW, at first; the time that t takes is about 1 / (lr * decay)
            steps.

    Source: arXiv 2512.12981 (2025), "CoDeQ".

    Departures:
        t does not go below 0.02, where the dead zone would reach the largest level.

    Raises:
        RegrowError: a number is out of its range.
    """

    bits: int = 4
    learn_bits: bool = False
    decay: float = 1.0
    bits_decay: float = 0.0
    lr: float = 0.01

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise RegrowError(f"bits={self.bits!r} is a whole number from 2 to 8.")
        for name in ("decay", "bits_decay", "lr"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise RegrowError(f"{name}={value} is a finite number of at least 0.")
        if self.bits_decay and not self.learn_bits:
            raise RegrowError(
                f"bits_decay={self.bits_decay} pulls on bits that are learned, but they are fixed "
                f"at {self.bits}; give learn_bits=True too, or leave bits_decay out."
            )

    @property
    def numbers(self) -> tuple[Number, ...]:
        """t and, where bits are learned, u: no dead zone at first, and all bits."""
        width = Number("width", 3.0, self.lr, self.decay, 0.02)
        bits = Number("bits", 3.0, self.lr, self.bits_decay, 0.0)
        return (width, bits) if self.learn_bits else (width,)

    def span(self, trained: Tensor) -> Tensor:
        """The 99th percentile of |w|, a tensor of no axes."""
        sizes = trained.detach().abs().flatten()
        place = max(1, math.ceil(_SPAN * sizes.numel())) - 1
        if sizes.device.type == "cpu":  # an order of magnitude faster than kthvalue
            return torch.tensor(np.partition(sizes.numpy(), place)[place])
        return sizes.kthvalue(place + 1).values

    def used(self, trained: Tensor, span: Tensor, numbers: Mapping[str, Tensor]) -> Tensor:
        """The weights that the network uses, of the shape of `trained`."""
        s, h, top = self._levels(span, numbers)
        z = torch.minimum(_steps(trained, s, h).round_(), top)
        return torch.where(z > 0, trained.sign() * (s * z + h), 0.0)

    def gradients(
        self, trained: Tensor, span: Tensor, numbers: Mapping[str, Tensor], grad: Tensor
    ) -> dict[str, Tensor]:
        """Of the loss by t and u, from its gradient by the weights that are used."""
        s, h, top = self._levels(span, numbers)
        x = _steps(trained, s, h)
        z = torch.minimum(x.round(), top)
        outwards = grad * trained.sign()
        by_s = (outwards * (z - x)).sum()
        by_h = -(outwards * (z == 0)).sum()
        inner = by_s - by_h / 2  # h holds -s / 2
        tanh = numbers["width"].tanh()
        by_d = by_h / 2 - inner / (2 * (top - 0.5))
        found = {"width": by_d * -2 * span * tanh.sign() * (1 - tanh**2)}
        if "bits" in numbers:
            tanh = numbers["bits"].tanh()
            by_top = -inner * (s - 1e-8) / (top - 0.5)
            slope = (self.bits - 2) * tanh.sign() * (1 - tanh**2)
            found["bits"] = by_top * (top + 1) * math.log(2) * slope
        return found

    def told(self, numbers: Mapping[str, Tensor]) -> dict[str, Any]:
        """The bits of a layer's weights."""
        return {"bits": int(self._bits(numbers))}

    def _bits(self, numbers: Mapping[str, Tensor]) -> Tensor | int:
        if not self.learn_bits:
            return self.bits
        return ((self.bits - 2) * numbers["bits"].tanh().abs() + 2).round()

    def _levels(self, span: Tensor, numbers: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Step, shift, and the largest whole number."""
        top = torch.as_tensor(2.0 ** (self._bits(numbers) - 1) - 1, device=span.device)
        d = 2 * span * (1 - numbers["width"].tanh().abs())
        s = (span - d / 2) / (top - 0.5) + 1e-8
        return s, d / 2 - s / 2, top


def _steps(trained: Tensor, s: Tensor, h: Tensor) -> Tensor:
    """How many steps |w| lies beyond the shift, before rounding: |x|."""
    return (trained.abs() - h).clamp_(min=0).div_(s)
