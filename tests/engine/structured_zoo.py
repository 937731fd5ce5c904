"""Small networks whose coupled groups are known, and what every one of them must satisfy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import regrow
from regrow.model.coupling.nests import tensors_of


class Net(nn.Module):
    """Parts, sizes and a forward function."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.own = forward
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part, persistent=False)
            else:
                setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.own(self, *args, **kwargs)


@dataclass(frozen=True)
class Case:
    """A network and what is expected of it.

    Attributes:
        make: the network.
        shapes: of its inputs.
        groups: units by name, all of them.
        bound: part of the reason why a layer cannot lose outputs, by layer.
        words: inputs are numbers below this instead of floats.
        form: from inputs to the example's form.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    groups: Mapping[str, int]
    bound: Mapping[str, str] = field(default_factory=dict)
    words: int = 0
    form: Callable[..., Any] = lambda *inputs: inputs

    def inputs(self, seed: int, dtype: torch.dtype = torch.float32) -> Any:
        """New ones for every seed."""
        numbers = torch.Generator().manual_seed(seed)
        if self.words:
            found = [torch.randint(self.words, s, generator=numbers) for s in self.shapes]
        else:
            drawn = [torch.randn(s, generator=numbers, dtype=torch.float64) for s in self.shapes]
            found = [each.to(dtype) for each in drawn]
        return self.form(*found)


def case(
    make: Callable[[], nn.Module],
    *shapes: tuple[int, ...],
    bound: Mapping[str, str] | None = None,
    words: int = 0,
    form: Callable[..., Any] = lambda *inputs: inputs,
    **groups: int,
) -> Case:
    return Case(make, shapes, groups, bound or {}, words, form)


def built(each: Case, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network with values that nothing is blind to: norms are not ones and zeros."""
    torch.manual_seed(7)
    model = each.make().to(dtype)
    numbers = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point():
                continue
            drawn = torch.randn(tensor.shape, generator=numbers, dtype=torch.float64)
            if "running_var" in name or (tensor.dim() == 1 and name.endswith("weight")):
                drawn = 0.5 + drawn.abs()
            elif tensor.dim() > 1:
                drawn /= max(1.0, math.prod(tensor.shape[1:])) ** 0.5
            tensor.copy_(drawn)
    return model.eval()


@cache
def known(make: Callable[[], nn.Module], shapes: Any, words: int, form: Any) -> Any:
    each = Case(make, shapes, {}, {}, words, form)
    model = built(each)
    return model, regrow.groups(model, each.inputs(0))


def of(each: Case) -> tuple[nn.Module, Any]:
    """The network and its groups, found once."""
    return known(each.make, each.shapes, each.words, each.form)


def keeps(groups: Any) -> st.SearchStrategy[dict[str, Tensor]]:
    """Which units stay, at least one of each group."""
    return st.fixed_dictionaries({group.name: masks(len(group)) for group in groups})


def masks(units: int) -> st.SearchStrategy[Tensor]:
    return st.integers(1, 2**units - 1).map(
        lambda bits: torch.tensor([bool(bits >> i & 1) for i in range(units)])
    )


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """All floating tensors that it gives."""
    out = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    return [each for each in tensors_of(out) if each.is_floating_point()]


def close(found: Tensor, expected: Tensor, share: float) -> bool:
    """To a share of the largest value."""
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return found.shape == expected.shape and bool(
        ((found - expected).abs() <= share * scale + share * 1e-3).all()
    )


def gradients(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """Of a sum of all outputs, each with a weight of its own."""
    model = copy.deepcopy(model)
    numbers = torch.Generator().manual_seed(3)
    total = torch.zeros((), dtype=torch.float64)
    for out in run(model, inputs):
        total = total + (out * torch.randn(out.shape, generator=numbers, dtype=out.dtype)).sum()
    total.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }


def smaller(shapes: Mapping[str, tuple[int, ...]], keep: Any) -> int:
    """Entries of tensors of which only these indices stay."""
    total = 0
    for name, shape in shapes.items():
        sizes = [len(keep.get(name, {}).get(i, range(n))) for i, n in enumerate(shape)]
        total += math.prod(sizes)
    return total
