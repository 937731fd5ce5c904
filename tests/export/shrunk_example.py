"""Networks that are cut, written and read again, some of them in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import regrow


class Residual(nn.Module):
    """Convolutions with norms, a grouped one, and a buffer that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.outer = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 5)
        self.register_buffer("table", torch.linspace(-1, 1, 8).reshape(8, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)) + self.table)
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.head(x.mean((2, 3)))


class Tokens(nn.Module):
    """Attention whose heads are an attribute, tied to an embedding that is the head too."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.sizes = 4, (8, 8)
        self.embed, self.qkv = nn.Embedding(11, 6), nn.Linear(6, 36)
        self.out, self.wide, self.back = nn.Linear(12, 6), nn.Linear(6, 16), nn.Linear(8, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words)
        b, t, _ = x.shape
        q, k, v = (
            p.reshape(b, t, self.num_heads, -1).transpose(1, 2) for p in self.qkv(x).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, -1))
        gate, value = torch.split(self.wide(x), self.sizes, -1)
        return self.head(x + self.back(torch.sigmoid(gate) * value))


NETS: dict[str, Callable[[], nn.Module]] = {"residual": Residual, "tokens": Tokens}


def fresh(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETS[kind]().eval()


def inputs(kind: str, seed: int = 0, count: int = 3) -> Tensor:
    numbers = torch.Generator().manual_seed(seed)
    if kind == "tokens":
        return torch.randint(11, (count, 5), generator=numbers)
    return torch.randn(count, 3, 6, 6, generator=numbers)


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(x)
    return found


def halved(kind: str) -> tuple[nn.Module, regrow.Shrunk]:
    """A network, and it with every second unit of each group."""
    model = fresh(kind, 5)
    groups = regrow.groups(model, inputs(kind))
    keep = {group.name: torch.arange(len(group)) % 2 == 0 for group in groups}
    return model, regrow.shrink(model, inputs(kind), keep, groups=groups)


def tree(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in nested dictionaries and lists."""
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)  # type: ignore[assignment]
    else:
        return [path]
    return [path, *(p for key, each in inside for p in tree(each, (*path, key)))]
