"""A packed network as ONNX, for the engines that read it: opset 18, dense float32 weights.

Batch norms stay nodes of their own; every engine folds them itself. Where ONNX and the table of
operations differ (pooling with `ceil`, adaptive pooling), the node is expressed by others.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regrow.bench.timing.onnx_writer import Writer
from regrow.bench.timing.source import Source

if TYPE_CHECKING:
    from regrow_runtime.graph import Node

OPSET = 18
_IR = 9  # what DeepSparse 1.8 still reads, beside ONNX Runtime 1.20 and OpenVINO 2024
_NATIVE = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "softplus": "Softplus",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
}


def onnx_model(source: Source) -> Any:
    """An `onnx.ModelProto` with the source's names of inputs and outputs and a dynamic batch axis.

    Raises:
        ImportError: the package onnx is missing.
    """
    onnx = importlib.import_module("onnx")
    importlib.import_module("onnx.helper")
    importlib.import_module("onnx.numpy_helper")
    writer = Writer(source, onnx)
    for node in source.graph.nodes:
        if node.op in _NATIVE:
            writer.emit(_NATIVE[node.op], list(node.inputs), node.output)
        else:
            _WRITERS[node.op](writer, node)
    outputs = []
    for number, name in enumerate(source.graph.outputs):
        # An output may be an input, or be given twice; ONNX wants names of their own.
        writer.emit("Identity", [name], f"output_{number}")
        outputs.append(writer.described(f"output_{number}", source.shapes[name]))
    inputs = [writer.described(name, shape) for name, shape, _ in source.graph.inputs]
    graph = onnx.helper.make_graph(
        writer.nodes, "regrow", inputs, outputs, list(writer.initializers.values())
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR)


def _conv2d(to: Writer, node: Node) -> None:
    a = node.attributes
    to.emit(
        "Conv",
        [
            node.inputs[0],
            *(to.array(node.arrays[r]) for r in ("weight", "bias") if r in node.arrays),
        ],
        node.output,
        kernel_shape=list(to.source.arrays[node.arrays["weight"]].shape[2:]),
        strides=list(a["stride"]),
        pads=[*a["padding"], *a["padding"]],
        dilations=list(a["dilation"]),
        group=a["groups"],
    )


def _linear(to: Writer, node: Node) -> None:
    (x,) = node.inputs
    bias = to.array(node.arrays["bias"]) if "bias" in node.arrays else None
    if len(to.shape(node)) == 1:
        weight = to.array(node.arrays["weight"])
        to.emit("Gemm", [x, weight, *([bias] if bias else [])], node.output, transB=1)
        return
    turned = to.constant(to.source.arrays[node.arrays["weight"]].T)
    if bias is None:
        to.emit("MatMul", [x, turned], node.output)
    else:
        to.emit("Add", [to.emit("MatMul", [x, turned]), bias], node.output)


def _batch_norm(to: Writer, node: Node) -> None:
    channels = to.shape(node)[0]
    weight, bias = (
        to.array(node.arrays[role]) if role in node.arrays else to.constant(np.full(channels, fill))
        for role, fill in (("weight", 1), ("bias", 0))
    )
    mean, var = to.array(node.arrays["mean"]), to.array(node.arrays["var"])
    to.emit(
        "BatchNormalization",
        [node.inputs[0], weight, bias, mean, var],
        node.output,
        epsilon=float(node.attributes["eps"]),
    )


def _layer_norm(to: Writer, node: Node) -> None:
    axes = node.attributes["axes"]
    last = to.shape(node)[-axes:]
    weight = (
        to.array(node.arrays["weight"]) if "weight" in node.arrays else to.constant(np.ones(last))
    )
    bias = [to.array(node.arrays["bias"])] if "bias" in node.arrays else []
    to.emit(
        "LayerNormalization",
        [node.inputs[0], weight, *bias],
        node.output,
        axis=-axes,
        epsilon=float(node.attributes["eps"]),
    )


def _silu(to: Writer, node: Node) -> None:
    (x,) = node.inputs
    to.emit("Mul", [x, to.emit("Sigmoid", [x])], node.output)


def _gelu(to: Writer, node: Node) -> None:
    """The form that engines know again: x (1 + erf(x / sqrt 2)) / 2, or that with tanh."""
    (x,) = node.inputs
    if node.attributes["tanh"]:
        cubed = to.emit("Mul", [to.emit("Pow", [x, to.constant(3.0)]), to.constant(0.044715)])
        inner = to.emit("Mul", [to.emit("Add", [x, cubed]), to.constant(math.sqrt(2 / math.pi))])
        bent = to.emit("Tanh", [inner])
    else:
        bent = to.emit("Erf", [to.emit("Div", [x, to.constant(math.sqrt(2))])])
    product = to.emit("Mul", [x, to.emit("Add", [bent, to.constant(1.0)])])
    to.emit("Mul", [product, to.constant(0.5)], node.output)


def _clamp(to: Writer, node: Node) -> None:
    limits = node.attributes or {"low": 0.0, "high": 6.0}  # relu6 has none of its own
    bounds = ["" if limits[key] is None else to.constant(limits[key]) for key in ("low", "high")]
    to.emit("Clip", [node.inputs[0], *bounds], node.output)


def _hardsigmoid(to: Writer, node: Node) -> None:
    to.emit("HardSigmoid", list(node.inputs), node.output, alpha=1 / 6, beta=0.5)


def _prelu(to: Writer, node: Node) -> None:
    slope = node.arrays["weight"]
    shape = (to.source.arrays[slope].size, *[1] * (len(to.shape(node)) - 1))
    to.emit("PRelu", [node.inputs[0], to.array(slope, shape)], node.output)


def _windows(node: Node, image: Sequence[int], outputs: Sequence[int]) -> list[int]:
    """How far behind the input the windows reach, by axis; negative where they end before it."""
    a = node.attributes
    dilation = a.get("dilation", (1, 1))
    return [
        (outputs[i] - 1) * a["stride"][i] + dilation[i] * (a["kernel"][i] - 1) + 1
        - image[i] - a["padding"][i]
        for i in range(2)
    ]  # fmt: skip


def _max_pool2d(to: Writer, node: Node) -> None:
    """Padding is -inf, so whatever the last window reaches over the end may be padding."""
    a = node.attributes
    behind = _windows(node, to.shape(node)[1:], to.source.shapes[node.output][1:])
    pads = [*a["padding"], *(max(0, each) for each in behind)]
    x = node.inputs[0]
    if any(pads[i] >= a["kernel"][i % 2] for i in range(4)):  # more than engines take
        x = _padded(to, x, pads, float(np.finfo(np.float32).min))
        pads = [0, 0, 0, 0]
    _pool(to, "MaxPool", x, node, pads, dilations=list(a["dilation"]))


def _avg_pool2d(to: Writer, node: Node) -> None:
    """A mean counts padding if `count_padding`, but never what lies behind the padding."""
    a = node.attributes
    behind = _windows(node, to.shape(node)[1:], to.source.shapes[node.output][1:])
    (x,), pads, count = node.inputs, [*a["padding"], *(max(0, n) for n in behind)], False
    if a["count_padding"] and any(a["padding"]):
        over = [n - p for n, p in zip(behind, a["padding"], strict=True)]
        count = max(over) <= 0
        if not count:
            x = _padded(to, x, [*a["padding"], *a["padding"]], 0.0)
            pads = [0, 0, *(max(0, n) for n in over)]
    _pool(to, "AveragePool", x, node, pads, count_include_pad=int(count))


def _pool(to: Writer, op: str, x: str, node: Node, pads: list[int], **more: Any) -> None:
    kernel, strides = list(node.attributes["kernel"]), list(node.attributes["stride"])
    to.emit(op, [x], node.output, kernel_shape=kernel, strides=strides, pads=pads, **more)


def _padded(to: Writer, x: str, pads: Sequence[int], value: float) -> str:
    """An image with (top, left, bottom, right) more pixels."""
    both = to.constant([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
    return to.emit("Pad", [x, both, to.constant(value)])


def _adaptive_avg_pool2d(to: Writer, node: Node) -> None:
    """Equal windows where they divide the image, else one matrix of means for each axis."""
    (x,), image, size = node.inputs, to.shape(node)[1:], node.attributes["size"]
    if all(n % s == 0 for n, s in zip(image, size, strict=True)):
        if all(s == 1 for s in size):
            to.emit("GlobalAveragePool", [x], node.output)
            return
        kernel = [n // s for n, s in zip(image, size, strict=True)]
        to.emit("AveragePool", [x], node.output, kernel_shape=kernel, strides=kernel)
        return
    rows, columns = (_means(n, s) for n, s in zip(image, size, strict=True))
    across = to.emit("MatMul", [x, to.constant(columns.T)])
    to.emit("MatMul", [to.constant(rows), across], node.output)


def _means(length: int, size: int) -> Any:
    """(size, length): row i averages the entries from i n / s down to (i + 1) n / s up."""
    matrix = np.zeros((size, length), np.float32)
    for i in range(size):
        first, end = i * length // size, -(-(i + 1) * length // size)
        matrix[i, first:end] = 1 / (end - first)
    return matrix


def _mean(to: Writer, node: Node) -> None:
    axes = to.constant(node.attributes["axes"], np.int64)
    keep = int(node.attributes["keep"])
    to.emit("ReduceMean", [node.inputs[0], axes], node.output, keepdims=keep)


def _scalar(op: str) -> Callable[[Writer, Node], None]:
    def write(to: Writer, node: Node) -> None:
        to.emit(op, [node.inputs[0], to.constant(node.attributes["value"])], node.output)

    return write


def _array(op: str) -> Callable[[Writer, Node], None]:
    def write(to: Writer, node: Node) -> None:
        to.emit(op, [node.inputs[0], to.array(node.arrays["weight"])], node.output)

    return write


def _reshape(to: Writer, node: Node) -> None:
    shape = to.constant([0, *node.attributes["shape"]], np.int64)  # 0: the batch as it is
    to.emit("Reshape", [node.inputs[0], shape], node.output)


def _slice(to: Writer, node: Node) -> None:
    bounds = [
        to.constant([node.attributes[k]], np.int64) for k in ("start", "stop", "axis", "step")
    ]
    to.emit("Slice", [node.inputs[0], *bounds], node.output)


def _pad(to: Writer, node: Node) -> None:
    a = node.attributes
    pads = to.constant([0, *a["before"], 0, *a["after"]], np.int64)
    to.emit("Pad", [node.inputs[0], pads, to.constant(a["value"])], node.output)


def _with(op: str, **names: str) -> Callable[[Writer, Node], None]:
    """The same operation with attributes that ONNX calls otherwise."""

    def write(to: Writer, node: Node) -> None:
        attributes = {theirs: node.attributes[ours] for theirs, ours in names.items()}
        to.emit(op, list(node.inputs), node.output, **attributes)

    return write


_WRITERS: Mapping[str, Callable[[Writer, Node], None]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "relu6": _clamp,
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
    "leaky_relu": _with("LeakyRelu", alpha="slope"),
    "elu": _with("Elu", alpha="alpha"),
    "gelu": _gelu,
    "clamp": _clamp,
    "prelu": _prelu,
    "softmax": _with("Softmax", axis="axis"),
    "log_softmax": _with("LogSoftmax", axis="axis"),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "add_scalar": _scalar("Add"),
    "mul_scalar": _scalar("Mul"),
    "add_array": _array("Add"),
    "mul_array": _array("Mul"),
    "concat": _with("Concat", axis="axis"),
    "flatten": _reshape,
    "reshape": _reshape,
    "permute": _with("Transpose", perm="axes"),
    "slice": _slice,
    "pad": _pad,
}
