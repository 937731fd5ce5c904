"""What the sweep knows of a network, and how its random weights are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Example = tuple[Tensor, ...] | dict[str, Tensor]

SEED = 0
FLAT = 0.1  # constants below this are scales of branches that begin nearly closed


@dataclass(frozen=True)
class Model:
    """A network by name: `build` and `example` give the same values at every call."""

    name: str
    family: str
    build: Callable[[], nn.Module]
    example: Callable[[], Example]
    classes: int  # outputs of its last layers, which stay

    def make(self) -> nn.Module:
        """A new copy in evaluation mode; equal to all others of this name."""
        torch.manual_seed(SEED)
        model = self.build().eval()
        scatter(model)
        return model


@torch.no_grad()
def scatter(model: nn.Module) -> None:
    """Gives constant parameters and running statistics random values, as training would.

    Fresh networks hold scales of one, biases of zero, and branches closed by a scale of zero or
    1e-6. Removing a channel there is like masking it whatever a tool does, or changes nothing.
    """
    generator = torch.Generator().manual_seed(SEED)
    for parameter in model.parameters():
        if not parameter.is_floating_point() or parameter.numel() < 2:
            continue
        first = float(parameter.flatten()[0])
        if not bool((parameter == first).all()):
            continue
        noise = torch.rand(parameter.shape, generator=generator).to(parameter.dtype)
        if abs(first) < FLAT and first != 0:
            parameter.copy_(0.05 + 0.1 * noise)
        elif first == 0:
            parameter.copy_(0.2 * noise - 0.1)
        else:
            parameter.copy_(first * (0.5 + noise))
    for module in model.modules():
        mean, variance = (getattr(module, f"running_{kind}", None) for kind in ("mean", "var"))
        if isinstance(mean, Tensor) and isinstance(variance, Tensor):
            mean.copy_(0.2 * torch.rand(mean.shape, generator=generator) - 0.1)
            variance.copy_(0.5 + torch.rand(variance.shape, generator=generator))


def call(model: nn.Module, example: Example) -> list[Tensor]:
    """The network's outputs: its logits where it names them, or else every tensor it returns."""
    out = model(**example) if isinstance(example, dict) else model(*example)
    return _tensors(getattr(out, "logits", out))


def to(example: Example, dtype: torch.dtype) -> Example:
    """The same example with its floating-point tensors in another precision."""

    def cast(value: Tensor) -> Tensor:
        return value.to(dtype) if value.is_floating_point() else value

    if isinstance(example, dict):
        return {name: cast(value) for name, value in example.items()}
    return tuple(cast(value) for value in example)


def _tensors(out: Any) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    if isinstance(out, dict):
        out = list(out.values())
    parts = out if isinstance(out, list | tuple) else []
    return [leaf for part in parts for leaf in _tensors(part)]
