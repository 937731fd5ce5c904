"""A second reading of the table of operations: slow, in double precision, and strict.

It shares nothing with the capture or the runtime but the dataclasses. A graph is checked against
the table's own words before a value is computed: operations, roles, attributes and order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from regrow_runtime.graph import Graph, Node

# Of each operation: how many inputs (None: any), arrays it must and may have, attributes.
WORDS: dict[str, tuple[int | None, str, str, str]] = {
    "conv2d": (1, "weight", "bias", "stride padding dilation groups"),
    "linear": (1, "weight", "bias", ""),
    "batch_norm": (1, "mean var", "weight bias", "eps"),
    "layer_norm": (1, "", "weight bias", "axes eps"),
    "leaky_relu": (1, "", "", "slope"),
    "elu": (1, "", "", "alpha"),
    "gelu": (1, "", "", "tanh"),
    "clamp": (1, "", "", "low high"),
    "prelu": (1, "weight", "", ""),
    "softmax": (1, "", "", "axis"),
    "log_softmax": (1, "", "", "axis"),
    "max_pool2d": (1, "", "", "kernel stride padding dilation ceil"),
    "avg_pool2d": (1, "", "", "kernel stride padding ceil count_padding"),
    "adaptive_avg_pool2d": (1, "", "", "size"),
    "mean": (1, "", "", "axes keep"),
    "add": (2, "", "", ""),
    "sub": (2, "", "", ""),
    "mul": (2, "", "", ""),
    "add_scalar": (1, "", "", "value"),
    "mul_scalar": (1, "", "", "value"),
    "add_array": (1, "weight", "", ""),
    "mul_array": (1, "weight", "", ""),
    "concat": (None, "", "", "axis"),
    "reshape": (1, "", "", "shape"),
    "permute": (1, "", "", "axes"),
    "slice": (1, "", "", "axis start stop step"),
    "pad": (1, "", "", "before after value"),
}

ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x * (x > 0),
    "relu6": lambda x: x.clamp(0, 6),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": torch.tanh,
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "hardsigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
    "softplus": lambda x: torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0),
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0)),
}


def run(graph: Graph, state: Mapping[str, Tensor], *inputs: Tensor) -> list[Tensor]:
    """The graph's outputs for a batch, float64."""
    assert len(inputs) == len(graph.inputs)
    batch = len(inputs[0])
    values: dict[str, Tensor] = {}
    for (name, shape, dtype), given in zip(graph.inputs, inputs, strict=True):
        assert given.shape == (batch, *shape)
        assert (dtype, name.isidentifier()) == ("float32", True)
        values[name] = given.double()
    for node in graph.nodes:
        _check(node)
        assert node.output not in values, f"{node.output} is made twice"
        arrays = {role: state[name].double() for role, name in node.arrays.items()}
        result = _one(node, [values[name] for name in node.inputs], arrays)
        assert len(result) == batch, f"{node} loses the batch"
        values[node.output] = result
    return [values[name] for name in graph.outputs]


def _check(node: Node) -> None:
    count, must, may, attributes = WORDS.get(node.op) or (1, "", "", "")
    assert node.op in WORDS or node.op in ELEMENTWISE, node.op
    assert count in (None, len(node.inputs)), node
    assert set(must.split()) <= set(node.arrays) <= {*must.split(), *may.split()}, node
    assert set(node.attributes) == set(attributes.split()), node
    for name, value in node.attributes.items():
        assert json.loads(json.dumps(value, allow_nan=False)) == value
        numbers = value if isinstance(value, list) else [value]
        if name not in ("value", "slope", "alpha", "low", "high", "eps", "tanh", "keep", "ceil"):
            assert all(isinstance(one, int) and one >= 0 for one in numbers), node


def _one(node: Node, xs: list[Tensor], arrays: dict[str, Tensor]) -> Tensor:
    if node.op in ELEMENTWISE:
        return ELEMENTWISE[node.op](xs[0])
    return globals()[f"_{node.op}"](*xs, **arrays, **node.attributes)  # type: ignore[no-any-return]


def _conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: Any, padding: Any,
    dilation: Any, groups: int,
) -> Tensor:  # fmt: skip
    """By patches: (batch, group, C/g * kh * kw, positions) times the weights of each group."""
    out, _, *kernel = weight.shape
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = [
        (length + 2 * p - span) // s + 1
        for length, p, span, s in zip(x.shape[2:], padding, spans, stride, strict=True)
    ]
    patches = F.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
    patches = patches.view(len(x), groups, -1, math.prod(sizes))
    result = torch.einsum("bgip,goi->bgop", patches, weight.reshape(groups, out // groups, -1))
    result = result.reshape(len(x), out, *sizes)
    return result if bias is None else result + bias.view(-1, 1, 1)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result = torch.einsum("...f,of->...o", x, weight)
    return result if bias is None else result + bias


def _batch_norm(x: Tensor, mean: Tensor, var: Tensor, eps: float, **affine: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    result = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + eps)
    if "weight" in affine:
        result = result * affine["weight"].view(shape)
    return result + affine["bias"].view(shape) if "bias" in affine else result


def _layer_norm(x: Tensor, axes: int, eps: float, **affine: Tensor) -> Tensor:
    last = list(range(x.dim() - axes, x.dim()))
    centred = x - x.mean(last, keepdim=True)
    result = centred / torch.sqrt((centred**2).mean(last, keepdim=True) + eps)
    return result * affine.get("weight", torch.tensor(1.0)) + affine.get("bias", torch.tensor(0.0))


def _leaky_relu(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def _elu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > 0, x, alpha * (torch.exp(x) - 1))


def _gelu(x: Tensor, tanh: bool) -> Tensor:
    if tanh:
        return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def _clamp(x: Tensor, low: float | None, high: float | None) -> Tensor:
    return x.clamp(-math.inf if low is None else low, math.inf if high is None else high)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return torch.where(x > 0, x, x * weight.view(1, -1, *[1] * (x.dim() - 2)))


def _softmax(x: Tensor, axis: int) -> Tensor:
    powers = torch.exp(x - x.amax(axis, keepdim=True))
    return powers / powers.sum(axis, keepdim=True)


def _log_softmax(x: Tensor, axis: int) -> Tensor:
    return torch.log(_softmax(x, axis))


def _max_pool2d(
    x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> Tensor:
    return F.max_pool2d(x, kernel, stride, padding, dilation, ceil)


def _avg_pool2d(
    x: Tensor, kernel: Any, stride: Any, padding: Any, ceil: bool, count_padding: bool
) -> Tensor:
    return F.avg_pool2d(x, kernel, stride, padding, ceil, count_padding)


def _adaptive_avg_pool2d(x: Tensor, size: Any) -> Tensor:
    return F.adaptive_avg_pool2d(x, size)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep)


def _add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def _sub(a: Tensor, b: Tensor) -> Tensor:
    return a - b


def _mul(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def _add_scalar(x: Tensor, value: float) -> Tensor:
    return x + value


def _mul_scalar(x: Tensor, value: float) -> Tensor:
    return x * value


def _add_array(x: Tensor, weight: Tensor) -> Tensor:
    assert (x + weight).shape == x.shape
    return x + weight


def _mul_array(x: Tensor, weight: Tensor) -> Tensor:
    assert (x * weight).shape == x.shape
    return x * weight


def _concat(*xs: Tensor, axis: int) -> Tensor:
    assert axis > 0
    return torch.cat(xs, axis)


def _reshape(x: Tensor, shape: list[int]) -> Tensor:
    return x.reshape(len(x), *shape)


def _permute(x: Tensor, axes: list[int]) -> Tensor:
    assert axes[0] == 0
    return x.permute(axes)


def _slice(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    assert axis > 0
    assert start < stop <= x.shape[axis]
    return x.index_select(axis, torch.arange(start, stop, step))


def _pad(x: Tensor, before: list[int], after: list[int], value: float) -> Tensor:
    sizes = [b + n + a for b, n, a in zip(before, x.shape[1:], after, strict=True)]
    result = torch.full((len(x), *sizes), value, dtype=torch.float64)
    inner = [slice(b, b + n) for b, n in zip(before, x.shape[1:], strict=True)]
    result[(slice(None), *inner)] = x
    return result
