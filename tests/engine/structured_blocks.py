"""Small residual networks of random blocks, whose branches may leave whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

X = (2, 3, 9, 9)
KINDS = ("post", "pre", "bottleneck", "depthwise", "gated", "pooled", "turned", "mlp")


@dataclass(frozen=True)
class Kind:
    """One block."""

    name: str
    norm: bool
    bias: bool
    inside: int
    skip: bool = True


def norm(channels: int, there: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if there else nn.Identity()


class Block(nn.Module):
    """A branch, added to what it reads."""

    def __init__(self, width: int, kind: Kind) -> None:
        super().__init__()
        inside, on, more = kind.inside, kind.norm, {"bias": kind.bias}
        self.kind = kind
        self.first: nn.Module = nn.Conv2d(width, inside, 3, padding=1, **more)  # type: ignore[arg-type]
        self.norm1, self.norm2 = norm(inside, on), norm(width, on)
        self.last: nn.Module = nn.Conv2d(inside, width, 3, padding="same", **more)  # type: ignore[arg-type]
        if kind.name == "pre":
            self.norm1, self.norm2 = norm(width, on), norm(inside, on)
        if kind.name == "bottleneck":
            self.middle = nn.Conv2d(inside, inside + 1, 3, padding=2, dilation=2, **more)  # type: ignore[arg-type]
            self.norm3 = norm(inside + 1, on)
            self.last = nn.Conv2d(inside + 1, width, 1, **more)  # type: ignore[arg-type]
        if kind.name == "depthwise":
            self.middle = nn.Conv2d(inside, inside, 3, padding=1, groups=inside, **more)  # type: ignore[arg-type]
            self.norm3 = norm(inside, on)
        if kind.name == "gated":
            self.down, self.up = nn.Conv2d(inside, 3, 1), nn.Conv2d(3, inside, 1)
        if kind.name == "turned":
            self.first = nn.Conv2d(width, inside, 3, stride=2, padding=1, **more)  # type: ignore[arg-type]
            self.last = nn.ConvTranspose2d(inside, width, 3, stride=2, padding=1, **more)  # type: ignore[arg-type]
        if kind.name == "mlp":
            self.first = nn.Linear(width, inside, **more)
            self.last = nn.Linear(inside, width, **more)

    def branch(self, x: Tensor) -> Tensor:
        name = self.kind.name
        if name == "pre":
            return self.last(F.gelu(self.norm2(self.first(F.gelu(self.norm1(x))))))
        if name == "mlp":
            return self.last(F.gelu(self.first(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        y = F.gelu(self.norm1(self.first(x)))
        if name in ("bottleneck", "depthwise"):
            y = F.gelu(self.norm3(self.middle(y)))
        if name == "gated":
            y = y * self.up(F.gelu(self.down(y.mean((2, 3), keepdim=True)))).sigmoid()
        if name == "pooled":
            y = F.interpolate(F.max_pool2d(y, 3), scale_factor=3.0)
        return self.norm2(self.last(y))

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.kind.skip:
            y += x  # in place, as in torchvision
        return y if self.kind.name == "pre" else torch.tanh(y)


class Blocks(nn.Module):
    """A stem, blocks, and a classifier."""

    def __init__(self, kinds: tuple[Kind, ...], width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width, kind) for kind in kinds))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return y


def built(kinds: tuple[Kind, ...], dtype: torch.dtype = torch.float32) -> Blocks:
    """With values that nothing is blind to."""
    model = Blocks(kinds).to(dtype)
    numbers = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                drawn: Any = torch.randn(tensor.shape, generator=numbers, dtype=torch.float64)
                if "running_var" in name or ("norm" in name and name.endswith("weight")):
                    drawn = 0.5 + drawn.abs()
                elif tensor.dim() > 1:
                    drawn = drawn / math.prod(tensor.shape[1:]) ** 0.5
                tensor.copy_(drawn)
    return model.eval()


def images(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(X, generator=numbers, dtype=torch.float64).to(dtype)


def kinds(skip: st.SearchStrategy[bool] | None = None) -> st.SearchStrategy[tuple[Kind, ...]]:
    """Of one to three blocks."""
    one = st.builds(
        Kind,
        st.sampled_from(KINDS),
        st.booleans(),
        st.booleans(),
        st.integers(2, 5),
        st.just(True) if skip is None else skip,
    )
    return st.lists(one, min_size=1, max_size=3).map(tuple)
