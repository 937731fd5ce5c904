"""Constants in place of layers without inputs, for files that run alone.

A layer that reads nothing gives the same number everywhere in a channel. So does a batch norm of it
in evaluation mode, which is computed here once. What has gone leaves nothing in the state dict.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from regrow.engine.stand_ins import NoInputs, NoOutputs, Passing, Windows


class Constant(nn.Module):
    """A number for each channel, in every place of an output."""

    value: Tensor

    def __init__(self, value: Tensor, stand: NoInputs) -> None:
        super().__init__()
        self.windows: Windows = stand.windows
        self.register_buffer("value", value)
        for name, tensor in _tensors(stand).items():
            setattr(self, name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.windows.spread(self.value, x)


def settle(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Make the stand-ins of a network constants, in place, together with the norms behind them.

    Args:
        model: a copy that is yours, in evaluation mode; without stand-ins it stays as it is.
        inputs: on which it runs once, to see which norm reads which of them.
    """
    if not any(isinstance(module, Passing) for module in model.modules()):
        return
    readers = _norms(model, inputs)
    swapped: dict[nn.Module, nn.Module] = {}
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NoInputs):
                value = module.value.detach().clone()
                norm = readers.get(module)
                if norm is not None:
                    value = norm(value[None])[0]
                    swapped[norm] = nn.Identity()
                swapped[module] = Constant(value, module)
            elif isinstance(module, NoOutputs):
                for name, tensor in _tensors(module).items():
                    delattr(module, name)
                    setattr(module, name, tensor)
            elif isinstance(module, Passing):
                swapped[module] = nn.Identity()
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in swapped:
                parent._modules[name] = swapped[child]


def _tensors(stand: Passing) -> dict[str, Tensor]:
    """Its own, as plain attributes that no state dict holds; code around it may look at them."""
    held = {**stand._parameters, **stand._buffers}
    return {name: tensor.detach() for name, tensor in held.items() if tensor is not None}


def _norms(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[nn.Module, nn.Module]:
    """The batch norm that reads what a stand-in gives, where each runs once."""
    given: dict[int, tuple[nn.Module, Tensor]] = {}
    runs: Counter[nn.Module] = Counter()
    found: dict[nn.Module, nn.Module] = {}

    def made(module: nn.Module, _: Any, out: Tensor) -> None:
        runs[module] += 1
        given[id(out)] = module, out  # held, so that no other tensor takes its number

    def read(module: nn.Module, args: tuple[Any, ...]) -> None:
        runs[module] += 1
        if args and id(args[0]) in given:
            found[given[id(args[0])][0]] = module

    with ExitStack() as stack, torch.no_grad():
        for module in model.modules():
            if isinstance(module, NoInputs):
                stack.callback(module.register_forward_hook(made).remove)
            elif isinstance(module, _BatchNorm) and module.running_mean is not None:
                stack.callback(module.register_forward_pre_hook(read).remove)
        model(*inputs)
    return {a: b for a, b in found.items() if runs[a] == runs[b] == 1}
