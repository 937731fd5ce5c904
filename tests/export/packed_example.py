"""A small network with masks, tied weights and integer buffers, and its bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Net(nn.Module):
    """Convolution, normalisation with integer buffers, tied weights and a submodule `module`."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.module = nn.Linear(width, 10, bias=False)
        self.head = nn.Linear(width, 10)
        self.head.weight = self.module.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        return self.module(x) + self.head(x)


def trained(seed: int = 0, sparsity: float = 0.9) -> tuple[Net, dict[str, Tensor]]:
    """A network with some zeros and moved statistics, and the masks of its weights."""
    generator = torch.Generator().manual_seed(seed)
    model = Net()
    keep = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if parameter.dim() > 1:
                keep[name] = torch.rand(parameter.shape, generator=generator) >= sparsity
                parameter.masked_fill_(~keep[name], 0.0)
    model(torch.randn(4, 3, 8, 8, generator=generator))
    return model.eval(), keep


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(INTEGERS[tensor.element_size()]).numpy().tobytes()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    def key(state: dict[str, Tensor]) -> dict[str, Any]:
        return {name: (t.dtype, t.shape, bits(t)) for name, t in state.items()}

    return key(first) == key(second)
