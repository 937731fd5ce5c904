"""What pruning left of a network, in one form for both tools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from network import Example, Model
from torch import Tensor, nn

# For every parameter by name, for every axis: the places of the original that are left, in order.
Kept = dict[str, list[Tensor]]


@dataclass
class Pruned:
    """A network without the channels that were removed, and the tool's account of it."""

    model: nn.Module
    kept: Kept
    groups: int
    units: int  # coupled channels (or heads) removed
    refused: dict[str, str] = field(default_factory=dict)  # group by its layer's name: reason


class Tool(Protocol):
    """One tool in one setting."""

    def warm_up(self) -> None:
        """Imports all that is imported late, on a network of two layers."""

    def graph(self, model: nn.Module, example: Example, entry: Model) -> object:
        """Finds the groups of channels that must go together."""

    def prune(self, graph: object) -> Pruned:
        """Removes half of the channels."""

    def save(self, pruned: Pruned, folder: str) -> None:
        """Writes what a fresh process needs."""

    def load(self, entry: Model, folder: str) -> nn.Module:
        """The network in a fresh process."""


def everything(model: nn.Module) -> Kept:
    """Nothing removed; tied parameters under each of their names."""
    return {
        name: [torch.arange(size) for size in parameter.shape]
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


@torch.no_grad()
def mask(model: nn.Module, kept: Kept) -> None:
    """Zeroes, in the original network, every parameter's entry that was removed."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        for axis, places in enumerate(kept[name]):
            if len(places) == parameter.shape[axis]:
                continue
            gone = torch.ones(parameter.shape[axis], dtype=torch.bool)
            gone[places] = False
            parameter.index_fill_(axis, gone.nonzero().flatten(), 0.0)


def size_error(pruned: Pruned, before: int) -> str | None:
    """Why the parameters are not what the tool says that it left; None where they are."""
    named = dict(pruned.model.named_parameters(remove_duplicate=False))
    for name, axes in pruned.kept.items():
        told = tuple(len(places) for places in axes)
        if name not in named:
            return f"{name} is gone"
        if tuple(named[name].shape) != told:
            return f"{name} has the shape {tuple(named[name].shape)}, not {told}"
    for name, module in pruned.model.named_modules():
        for attribute, size in _sizes(module):
            if getattr(module, attribute) != size:
                return f"{name}.{attribute} says {getattr(module, attribute)}, but it is {size}"
    after = parameters(pruned.model)
    if after >= before:
        return f"{after} parameters are left of {before}: nothing was removed"
    return None


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _sizes(module: nn.Module) -> Iterable[tuple[str, int]]:
    """Attributes of PyTorch's own layers that state a size, and the size that its weight has."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not hasattr(weight, "shape"):
        return
    if isinstance(module, nn.Linear):
        yield from (("out_features", weight.shape[0]), ("in_features", weight.shape[1]))
    elif isinstance(module, nn.modules.conv._ConvNd):
        turned = module.transposed
        yield "out_channels", weight.shape[1] * module.groups if turned else weight.shape[0]
        yield "in_channels", weight.shape[0] if turned else weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        yield "num_features", weight.shape[0]
