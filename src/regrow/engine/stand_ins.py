"""What stands in for a layer without inputs or outputs, where a whole group has left a network.

The layer that computed the group gives one channel of zeros, since pooling and resizing take no
tensor without channels; nothing reads more of it than its size. The layer that read the group gives
its bias, everywhere. State-dict keys stay, with empty tensors for what has gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from regrow.model.walk import modules_of

_HOLDERS = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm, nn.PReLU)


class Passing(nn.Module):
    """A norm or activation over no channels: what it is given, as it is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.training, self.stands_for = layer.training, type(layer).__name__
        for name, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            if tensor is None:
                setattr(self, name, None)
            elif isinstance(tensor, nn.Parameter) and tensor.numel():
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor.detach())

    def extra_repr(self) -> str:
        return f"for {self.stands_for}"

    def forward(self, x: Tensor) -> Tensor:
        return x


class Windows:
    """The sizes of a convolution's or linear layer's output, without its channels."""

    def __init__(self, layer: nn.Module) -> None:
        self.turned = bool(getattr(layer, "transposed", False))
        self.axes = tuple(_axes(layer)) if isinstance(layer, _ConvNd) else ()

    def around(self, x: Tensor) -> tuple[Sequence[int], list[int]]:
        """Before and behind the channels, for an input."""
        if not self.axes:
            return x.shape[:-1], []
        rank = len(self.axes)
        sizes = []
        for size, (kernel, stride, padded, dilation, more) in zip(
            x.shape[-rank:], self.axes, strict=True
        ):
            reach = dilation * (kernel - 1) + 1
            if self.turned:
                sizes.append((size - 1) * stride - padded + reach + more)
            else:
                sizes.append((size + padded - reach) // stride + 1)
        return x.shape[: -rank - 1], sizes

    def spread(self, value: Tensor, x: Tensor) -> Tensor:
        """One number for each channel, in every place; code may write into it."""
        before, behind = self.around(x)
        whole = (*before, len(value), *behind)
        return value.expand(whole).clone(memory_format=torch.contiguous_format)


def _axes(layer: _ConvNd) -> Iterator[tuple[int, ...]]:
    """Of each: kernel, stride, padding on both sides together, dilation, more of an output."""
    for axis, kernel in enumerate(layer.kernel_size):
        dilation, padding = layer.dilation[axis], layer.padding
        if isinstance(padding, str):
            padded = dilation * (kernel - 1) if padding == "same" else 0
        else:
            padded = 2 * int(padding[axis])
        yield kernel, layer.stride[axis], padded, dilation, layer.output_padding[axis]


class NoOutputs(Passing):
    """A convolution or linear layer of no outputs: one channel of zeros."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.windows = Windows(layer)

    def forward(self, x: Tensor) -> Tensor:
        before, behind = self.windows.around(x)
        return x.new_zeros((*before, 1, *behind))


class NoInputs(Passing):
    """A convolution or linear layer of no inputs: its bias, or zero, in every place."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.windows = Windows(layer)
        if layer.bias is None:
            outs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            nothing = layer.weight.detach().new_zeros(outs)
            self.register_buffer("nothing", nothing, persistent=False)

    @property
    def value(self) -> Tensor:
        """Of each channel; (channels, 1, ...) to be spread over what is behind them."""
        plain: Any = self.nothing if self.bias is None else self.bias
        spread: Tensor = plain.view(-1, *[1] * len(self.windows.axes))
        return spread

    def forward(self, x: Tensor) -> Tensor:
        return self.windows.spread(self.value, x)


def stand_in(layer: nn.Module) -> nn.Module | None:
    """What takes the place of a layer whose sizes have been set; None where it stays.

    Layers of one's own classes that compute in their own way stay.
    """
    for method in ("forward", "_conv_forward"):
        if not getattr(getattr(layer, method, None), "__module__", "torch.").startswith("torch."):
            return None
    if isinstance(layer, _ConvNd):
        ins, outs = layer.in_channels, layer.out_channels
    elif isinstance(layer, nn.Linear):
        ins, outs = layer.in_features, layer.out_features
    else:
        sizes = (getattr(layer, name, None) for name in _SIZES)
        return Passing(layer) if isinstance(layer, _HOLDERS) and 0 in sizes else None
    if outs == 0:
        return NoOutputs(layer)
    return NoInputs(layer) if ins == 0 else None


_SIZES = ("num_features", "num_channels", "num_parameters")


def substitute(model: nn.Module, paths: Iterable[str]) -> list[tuple[nn.Module, str, nn.Module]]:
    """Put stand-ins into a network, in every place of a layer; gives back what stood where."""
    made: dict[nn.Module, nn.Module] = {}
    for path in dict.fromkeys(paths):
        layer = model.get_submodule(path)
        new = stand_in(layer)
        if new is not None:
            made[layer] = new
    before = [
        (parent, name, child)
        for _, parent in (modules_of(model) if made else ())
        for name, child in parent._modules.items()
        if child in made
    ]
    for parent, name, layer in before:
        parent._modules[name] = made[layer]
    return before
