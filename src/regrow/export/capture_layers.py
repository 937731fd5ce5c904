"""Translations of layers: convolution, linear, normalisation, activations, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from regrow.export.capture_site import (
    Array,
    Result,
    Site,
    Translation,
    Value,
    as_arrays,
    as_axis,
    as_image,
    as_number,
    as_pair,
    as_value,
    need,
)

aten = torch.ops.aten


def conv2d(
    at: Site,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> str:
    source, arrays, spread = as_image(x), as_arrays(weight=weight, bias=bias), as_pair(dilation)
    if padding == "same":
        # PyTorch pads an odd total by one more at the end; the node pads both sides alike.
        total = [d * (k - 1) for d, k in zip(spread, weight.shape[2:], strict=True)]
        padding, after = [t // 2 for t in total], [t - t // 2 for t in total]
        if padding != after:
            source = at.emit("pad", source, before=[0, *padding], after=[0, *after], value=0.0)
            padding = 0
    return at.emit(
        "conv2d",
        source,
        arrays=arrays,
        stride=as_pair(stride),
        padding=as_pair(0 if padding == "valid" else padding),
        dilation=spread,
        groups=groups,
    )


def linear(at: Site, x: Any, weight: Any, bias: Any = None) -> str:
    source, arrays = as_value(x).name, as_arrays(weight=weight, bias=bias)
    need(len(weight.shape) == 2, f"{weight.name} does not have the shape (out, in)")
    need(bias is None or bias.shape == weight.shape[:1], "its bias does not have the shape (out,)")
    return at.emit("linear", source, arrays=arrays)


def matmul(at: Site, x: Any, right: Any, bias: Any = None) -> str:
    need(not isinstance(right, Value), "it multiplies by what is computed from the input")
    if isinstance(right, Array):
        need(
            right.transposed,
            f"it multiplies by {right.name}, which is not of the shape (out, in): store it so "
            "and multiply by its transpose, as nn.Linear does",
        )
        right = replace(right, transposed=False)
    return linear(at, x, right, bias)


def addmm(at: Site, bias: Any, x: Any, right: Any, *, beta: Any = 1, alpha: Any = 1) -> str:
    need(beta == 1 and alpha == 1, f"beta is {beta} and alpha {alpha}")
    return matmul(at, x, right, bias)


def batch_norm(
    at: Site, x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> Result:
    arrays = as_arrays(mean=mean, var=var, weight=weight, bias=bias)
    return at.emit("batch_norm", as_value(x).name, arrays=arrays, eps=eps), None, None


def layer_norm(
    at: Site,
    x: Any,
    shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> str:
    arrays = as_arrays(weight=weight, bias=bias)
    return at.emit("layer_norm", as_value(x).name, arrays=arrays, axes=len(shape), eps=eps)


def _plain(op: str) -> Translation:
    """An operation of one value and no attributes."""
    return lambda at, x: at.emit(op, as_value(x).name)


def leaky_relu(at: Site, x: Any, slope: float = 0.01) -> str:
    return at.emit("leaky_relu", as_value(x).name, slope=as_number(slope))


def elu(at: Site, x: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> str:
    need(scale == 1 and input_scale == 1, f"scale is {scale} and input_scale {input_scale}")
    return at.emit("elu", as_value(x).name, alpha=as_number(alpha))


def softplus(at: Site, x: Any, beta: float = 1, threshold: float = 20) -> str:
    need(beta == 1 and threshold == 20, f"beta is {beta} and threshold {threshold}, not 1 and 20")
    return at.emit("softplus", as_value(x).name)


def gelu(at: Site, x: Any, *, approximate: str = "none") -> str:
    return at.emit("gelu", as_value(x).name, tanh=approximate == "tanh")


def clamp(at: Site, x: Any, low: Any = None, high: Any = None) -> str:
    low, high = (None if one is None else as_number(one) for one in (low, high))
    return at.emit("clamp", as_value(x).name, low=low, high=high)


def clamp_max(at: Site, x: Any, high: Any) -> str:
    return clamp(at, x, None, high)


def hardtanh(at: Site, x: Any, low: float = -1, high: float = 1) -> str:
    return clamp(at, x, low, high)


def prelu(at: Site, x: Any, weight: Any) -> str:
    return at.emit("prelu", as_value(x).name, arrays=as_arrays(weight=weight))


def _softmax(op: str) -> Translation:
    return lambda at, x, dim, dtype=None: at.emit(op, as_value(x).name, axis=as_axis(dim, x))


def max_pool2d(
    at: Site,
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> str:
    return at.emit(
        "max_pool2d",
        as_image(x),
        kernel=as_pair(kernel),
        stride=as_pair(stride or kernel),
        padding=as_pair(padding),
        dilation=as_pair(dilation),
        ceil=ceil,
    )


def avg_pool2d(
    at: Site,
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> str:
    need(divisor is None, f"divisor_override is {divisor}")
    return at.emit(
        "avg_pool2d",
        as_image(x),
        kernel=as_pair(kernel),
        stride=as_pair(stride or kernel),
        padding=as_pair(padding),
        ceil=ceil,
        count_padding=count_padding,
    )


def adaptive_avg_pool2d(at: Site, x: Any, size: Any) -> str:
    return at.emit("adaptive_avg_pool2d", as_image(x), size=as_pair(size))


def mean(at: Site, x: Any, dims: Any, keep: bool = False, *, dtype: Any = None) -> str:
    value = as_value(x)
    need(bool(dims), "it works along the batch axis")
    axes = sorted(as_axis(axis, value) for axis in dims)
    return at.emit("mean", value.name, axes=axes, keep=keep)


LAYERS: dict[Any, Translation] = {
    aten.conv2d.default: conv2d,
    aten.conv2d.padding: conv2d,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.mm.default: matmul,
    aten.addmm.default: addmm,
    aten._native_batch_norm_legit_no_training.default: batch_norm,
    aten.layer_norm.default: layer_norm,
    aten.relu.default: _plain("relu"),
    aten.relu6.default: _plain("relu6"),
    aten.sigmoid.default: _plain("sigmoid"),
    aten.tanh.default: _plain("tanh"),
    aten.silu.default: _plain("silu"),
    aten.mish.default: _plain("mish"),
    aten.hardswish.default: _plain("hardswish"),
    aten.hardsigmoid.default: _plain("hardsigmoid"),
    aten.softplus.default: softplus,
    aten.leaky_relu.default: leaky_relu,
    aten.elu.default: elu,
    aten.gelu.default: gelu,
    aten.clamp.default: clamp,
    aten.clamp_min.default: clamp,
    aten.clamp_max.default: clamp_max,
    aten.hardtanh.default: hardtanh,
    aten.prelu.default: prelu,
    aten.softmax.int: _softmax("softmax"),
    aten.log_softmax.int: _softmax("log_softmax"),
    aten.max_pool2d.default: max_pool2d,
    aten.avg_pool2d.default: avg_pool2d,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.mean.dim: mean,
}
