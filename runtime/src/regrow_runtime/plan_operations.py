"""How operations other than convolutions are written into a program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regrow_runtime.fold import scale_and_shift
from regrow_runtime.graph import Node
from regrow_runtime.memory import Strided, planes

if TYPE_CHECKING:
    from regrow_runtime.plan import Planner

_UNARY = (
    "relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "mish", "softplus",
)  # fmt: skip


def _unary(op: str, p: float = 0.0, q: float = 0.0) -> Callable[[Planner, Node], None]:
    def add(planner: Planner, node: Node) -> None:
        source = planner.view(node.inputs[0])
        planner.program.unary(op, p, q, source.native(), planner.make(node.output).native())

    return add


def _from_attributes(
    of: Callable[[Mapping[str, Any]], tuple[str, float, float]],
) -> Callable[[Planner, Node], None]:
    def add(planner: Planner, node: Node) -> None:
        _unary(*of(node.attributes))(planner, node)

    return add


def _clamp(a: Mapping[str, Any]) -> tuple[str, float, float]:
    low = -math.inf if a["low"] is None else a["low"]
    return "clamp", low, math.inf if a["high"] is None else a["high"]


def _binary(op: str) -> Callable[[Planner, Node], None]:
    def add(planner: Planner, node: Node) -> None:
        shape = planner.shapes[node.output]
        sides = [planner.view(name) for name in node.inputs]
        if "weight" in node.arrays:
            sides.append(planner.constant(planner.arrays[node.arrays["weight"]]))
        a, b = (side.broadcast(shape).native() for side in sides)
        to = planner.make(node.output).native()
        planner.program.binary(op, a, b, to, -math.inf, math.inf)

    return add


def _batch_norm(planner: Planner, node: Node) -> None:
    scale, shift = scale_and_shift(node, planner.arrays)
    shape = planner.shapes[node.output]
    column = (len(scale), *[1] * (len(shape) - 1))
    source, to = planner.view(node.inputs[0]).native(), planner.make(node.output).native()
    factors, terms = (
        planner.constant(each.astype(np.float32).reshape(column)).broadcast(shape).native()
        for each in (scale, shift)
    )
    planner.program.binary("mul", source, factors, to, -math.inf, math.inf)
    planner.program.binary("add", to, terms, to, -math.inf, math.inf)


def _prelu(planner: Planner, node: Node) -> None:
    """max(x, 0) + weight * min(x, 0)."""
    shape = planner.shapes[node.output]
    weight = planner.arrays[node.arrays["weight"]].reshape(-1)
    column = weight.reshape(len(weight), *[1] * (len(shape) - 1)) if shape else weight
    source, to = planner.view(node.inputs[0]), planner.make(node.output)
    spare = planner.memory.take(planes(shape))
    negative = planner.memory.view(shape, spare).native()
    planner.program.unary("clamp", -math.inf, 0.0, source.native(), negative)
    factors = planner.constant(column).broadcast(shape).native()
    planner.program.binary("mul", negative, factors, negative, -math.inf, math.inf)
    planner.program.unary("relu", 0.0, 0.0, source.native(), to.native())
    planner.program.binary("add", to.native(), negative, to.native(), -math.inf, math.inf)
    planner.memory.give(spare)


def _pool(planner: Planner, node: Node) -> None:
    a, mean = node.attributes, node.op == "avg_pool2d"
    planner.program.pool(
        a["kernel"],
        a["stride"],
        a["padding"],
        (1, 1) if mean else a["dilation"],
        mean,
        bool(mean and a["count_padding"]),
        planner.view(node.inputs[0]).native(),
        planner.make(node.output).native(),
    )


def _adaptive(planner: Planner, node: Node) -> None:
    source = planner.view(node.inputs[0]).native()
    planner.program.adaptive_pool(source, planner.make(node.output).native())


def _mean(planner: Planner, node: Node) -> None:
    source = planner.view(node.inputs[0])
    reduced = sorted(axis - 1 for axis in node.attributes["axes"])
    kept = [axis for axis in range(len(source.shape)) if axis not in reduced]
    to = planner.make(node.output)
    if node.attributes["keep"]:
        strides = tuple(to.strides[axis] for axis in kept)
        to = Strided(to.buffer, to.offset, tuple(source.shape[axis] for axis in kept), strides)
    planner.program.mean(source.permuted([*kept, *reduced]).native(), len(reduced), to.native())


def _softmax(planner: Planner, node: Node) -> None:
    source, to = planner.view(node.inputs[0]), planner.make(node.output)
    axis = node.attributes["axis"] - 1
    order = [*(each for each in range(len(source.shape)) if each != axis), axis]
    log = node.op == "log_softmax"
    planner.program.softmax(source.permuted(order).native(), to.permuted(order).native(), log)


def _layer_norm(planner: Planner, node: Node) -> None:
    nothing = np.zeros(0, np.float32)
    weight, bias = (
        planner.arrays[node.arrays[role]].ravel() if role in node.arrays else nothing
        for role in ("weight", "bias")
    )
    source = planner.view(node.inputs[0]).native()
    to = planner.make(node.output).native()
    axes, eps = node.attributes["axes"], node.attributes["eps"]
    planner.program.layer_norm(source, axes, eps, weight, bias, to)


def _concat(planner: Planner, node: Node) -> None:
    views = [planner.view(name) for name in node.inputs]
    to, axis, start = planner.make(node.output), node.attributes["axis"] - 1, 0
    for view in views:
        part = to.sliced(axis, start, 1, view.shape[axis])
        planner.program.copy(view.native(), part.native())
        start += view.shape[axis]


def _reshape(planner: Planner, node: Node) -> None:
    name, shape = node.inputs[0], planner.shapes[node.output]
    source = planner.view(name)
    if planes(source.shape) == planes(shape) and not planner.is_part(name):
        planner.share(node.output, name)
        return
    lanes, count = planner.lanes, math.prod(shape)
    flat = planner.program.buffer(count * lanes)
    planner.program.copy(source.native(), _contiguous(flat, source.shape, lanes).native())
    to = planner.make(node.output).native()
    planner.program.copy(_contiguous(flat, shape, lanes).native(), to)


def _contiguous(buffer: int, shape: Sequence[int], lanes: int) -> Strided:
    strides: list[int] = []
    step = lanes
    for dim in reversed(shape):
        strides.insert(0, step)
        step *= dim
    return Strided(buffer, 0, tuple(shape), tuple(strides))


def _permute(planner: Planner, node: Node) -> None:
    source = planner.view(node.inputs[0])
    order = [axis - 1 for axis in node.attributes["axes"][1:]]
    to = planner.make(node.output).native()
    planner.program.copy(source.permuted(order).native(), to)


def _slice(planner: Planner, node: Node) -> None:
    a, shape = node.attributes, planner.shapes[node.output]
    axis = a["axis"] - 1
    part = planner.view(node.inputs[0]).sliced(axis, a["start"], a["step"], shape[axis])
    planner.part(node.output, node.inputs[0], part)


def _pad(planner: Planner, node: Node) -> None:
    a, source = node.attributes, planner.view(node.inputs[0])
    inner = planner.make(node.output)
    value = Strided(
        planner.program.constant(np.full(planner.lanes, a["value"], np.float32)), 0, (), ()
    )
    for axis, length in enumerate(source.shape):
        before, all_of_it = a["before"][axis], inner.shape[axis]
        for start, end in ((0, before), (before + length, all_of_it)):
            if start < end:
                edge = inner.sliced(axis, start, 1, end - start)
                planner.program.copy(value.broadcast(edge.shape).native(), edge.native())
        inner = inner.sliced(axis, before, 1, length)
    planner.program.copy(source.native(), inner.native())


OPERATIONS: dict[str, Callable[[Planner, Node], None]] = {
    **{op: _unary(op) for op in _UNARY},
    "leaky_relu": _from_attributes(lambda a: ("leaky_relu", a["slope"], 0.0)),
    "elu": _from_attributes(lambda a: ("elu", a["alpha"], 0.0)),
    "gelu": _from_attributes(lambda a: ("gelu_tanh" if a["tanh"] else "gelu", 0.0, 0.0)),
    "clamp": _from_attributes(_clamp),
    "add_scalar": _from_attributes(lambda a: ("affine", 1.0, a["value"])),
    "mul_scalar": _from_attributes(lambda a: ("affine", a["value"], 0.0)),
    "prelu": _prelu,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    "add": _binary("add"),
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "add_array": _binary("add"),
    "mul_array": _binary("mul"),
    "concat": _concat,
    "flatten": _reshape,
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "pad": _pad,
}
