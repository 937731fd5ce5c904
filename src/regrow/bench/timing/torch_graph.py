"""A packed network as a PyTorch module: the reference, and one of the dense engines.

Weights of convolutions are laid out channels last, and batch norms go into the layers before them,
as a user would prepare a model for a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.bench.timing.folded import folded
from regrow.bench.timing.source import Source

if TYPE_CHECKING:
    from regrow_runtime.graph import Node


class TorchNetwork(nn.Module):
    """Computes a graph with torch.nn.functional: tensors (batch, ...) in, a tuple of them out.

    `module.to(torch.bfloat16)` makes it compute in bfloat16; inputs are converted, outputs are
    float32 again.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._graph = source.graph
        self._nodes: list[tuple[Node, dict[str, str]]] = []
        source = folded(source)
        for index, node in enumerate(source.graph.nodes):
            names = {role: f"{role}_{index}" for role in node.arrays}
            for role, array in node.arrays.items():
                tensor = _tensor(source.arrays[array])
                self.register_buffer(names[role], _laid_out(tensor) if role == "weight" else tensor)
            self._nodes.append((node, names))
        self.register_buffer("_of_dtype", torch.zeros(()))
        self.train(False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        dtype = self.get_buffer("_of_dtype").dtype
        values = {
            name: _laid_out(given.to(dtype))
            for (name, _, _), given in zip(self._graph.inputs, inputs, strict=True)
        }
        for node, names in self._nodes:
            arrays = {role: self.get_buffer(name) for role, name in names.items()}
            given = [values[name] for name in node.inputs]
            values[node.output] = FUNCTIONS[node.op](*given, **arrays, **node.attributes)
        return tuple(values[name].float() for name in self._graph.outputs)


def run_numpy(module: nn.Module, inputs: list[Any]) -> list[Any]:
    """NumPy arrays in and out, without gradients."""
    with torch.inference_mode():
        return [each.contiguous().numpy() for each in module(*map(torch.from_numpy, inputs))]


def _tensor(array: Any) -> Tensor:
    # A copy: what a file gives may be read-only.
    return torch.from_numpy(np.array(array, np.float32))


def _laid_out(tensor: Tensor) -> Tensor:
    """Four axes channels last; all others as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def _batch_norm(x: Tensor, mean: Tensor, var: Tensor, eps: float, **affine: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, affine.get("weight"), affine.get("bias"), False, 0.0, eps)


def _layer_norm(x: Tensor, axes: int, eps: float, **affine: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-axes:], affine.get("weight"), affine.get("bias"), eps)


def _pad(x: Tensor, before: list[int], after: list[int], value: float) -> Tensor:
    pairs = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return F.pad(x, pairs, value=value)


def _slice(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    where = (*[slice(None)] * axis, slice(start, stop, step))
    return x[where]


def _reshape(x: Tensor, shape: list[int]) -> Tensor:
    return x.reshape(len(x), *shape)


FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "conv2d": lambda x, weight, bias=None, *, stride, padding, dilation, groups: F.conv2d(
        x, weight, bias, stride, padding, dilation, groups
    ),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "mish": F.mish,
    "softplus": F.softplus,
    "leaky_relu": lambda x, slope: F.leaky_relu(x, slope),
    "elu": lambda x, alpha: F.elu(x, alpha),
    "gelu": lambda x, tanh: F.gelu(x, approximate="tanh" if tanh else "none"),
    "clamp": lambda x, low, high: x if low is high is None else x.clamp(low, high),
    "prelu": lambda x, weight: F.prelu(x, weight.reshape(-1)),
    "softmax": lambda x, axis: x.softmax(axis),
    "log_softmax": lambda x, axis: x.log_softmax(axis),
    "max_pool2d": lambda x, kernel, stride, padding, dilation, ceil: F.max_pool2d(
        x, kernel, stride, padding, dilation, ceil
    ),
    "avg_pool2d": lambda x, kernel, stride, padding, ceil, count_padding: F.avg_pool2d(
        x, kernel, stride, padding, ceil, count_padding
    ),
    "adaptive_avg_pool2d": lambda x, size: F.adaptive_avg_pool2d(x, size),
    "mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "add_scalar": lambda x, value: x + value,
    "mul_scalar": lambda x, value: x * value,
    "add_array": lambda x, weight: x + weight,
    "mul_array": lambda x, weight: x * weight,
    "concat": lambda *xs, axis: torch.cat(xs, axis),
    "flatten": _reshape,
    "reshape": _reshape,
    "permute": lambda x, axes: x.permute(axes),
    "slice": _slice,
    "pad": _pad,
}
