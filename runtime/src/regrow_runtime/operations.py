"""The operations of a graph: what each takes, and the shape of what it gives.

Shapes here are without the batch axis. A shape function raises RuntimeFileError with a short
reason; `check_graph` adds the node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regrow_runtime.arrays import need

ELEMENTS_LIMIT = 2**28
RANK_LIMIT = 8

Shape = tuple[int, ...]
Arrays = Mapping[str, Shape]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """What an attribute may be, as a test and in words."""

    fits: Callable[[Any], bool]
    words: str


@dataclass(frozen=True)
class Operation:
    """What a node of an operation has.

    Attributes:
        shape: of its output, from its inputs' shapes, its arrays' shapes and its attributes;
            raises RuntimeFileError where they do not fit each other.
        inputs: how many; None: one or more.
        required: roles of arrays that it has.
        optional: roles of arrays that it may have.
        attributes: all of them.
    """

    shape: Callable[[list[Shape], Arrays, Attributes], Shape]
    inputs: int | None = 1
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    attributes: Mapping[str, Kind] = field(default_factory=dict)


def bounded(shape: Shape) -> Shape:
    need(len(shape) <= RANK_LIMIT, f"a value of more than {RANK_LIMIT} axes")
    need(min(shape, default=1) >= 1, f"a value of shape {shape} has no elements")
    need(math.prod(shape) <= ELEMENTS_LIMIT, f"a value of shape {shape} is too large")
    return shape


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**31


def _wholes(least: int, length: int | None, words: str) -> Kind:
    def fits(value: Any) -> bool:
        sized = type(value) in (list, tuple) and length in (None, len(value))
        return sized and all(_is_whole(item, least) for item in value)

    return Kind(fits, words)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _FLOAT32_MAX


_FLOAT32_MAX = float(2**128 - 2**104)
_SIZES = _wholes(1, 2, "two positive integers")
_OFFSETS = _wholes(0, 2, "two integers from 0 on")
WHOLES = _wholes(0, None, "a list of integers from 0 on")
_POSITIVE = Kind(lambda value: _is_whole(value, 1), "a positive integer")
_NATURAL = Kind(lambda value: _is_whole(value, 0), "an integer from 0 on")
_FLAG = Kind(lambda value: type(value) is bool, "a boolean")
_NUMBER = Kind(_is_number, "a number of float32's range")
_LIMIT = Kind(lambda value: value is None or _is_number(value), "null or a number")
_EPS = Kind(lambda value: _is_number(value) and value >= 0, "a number from 0 on")


def _image(shape: Shape) -> Shape:
    need(len(shape) == 3, f"its input has shape {shape}, not channels, height and width")
    return shape


def _vectors(arrays: Arrays, length: int, roles: tuple[str, ...]) -> None:
    for role in roles:
        shape = arrays.get(role, (length,))
        need(shape == (length,), f"its {role} has shape {shape}, not ({length},)")


def _axis(shape: Shape, axis: int) -> int:
    """The index of a full tensor's axis in a shape without the batch axis."""
    need(1 <= axis <= len(shape), f"axis {axis} does not exist behind the batch axis of {shape}")
    return axis - 1


def _padded(image: Shape, padding: list[int]) -> list[int]:
    sizes = [extent + 2 * pad for extent, pad in zip(image[1:], padding, strict=True)]
    bounded((image[0], *sizes))
    return sizes


def _conv2d(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    image, weight, groups = _image(inputs[0]), arrays["weight"], attributes["groups"]
    need(len(weight) == 4, f"its weight has shape {weight}, not four axes")
    fits = weight[1] * groups == image[0] and weight[0] % groups == 0 and min(weight) > 0
    need(fits, f"its weight {weight} in {groups} groups does not fit its input {image}")
    _vectors(arrays, weight[0], ("bias",))
    sizes = []
    for i, size in enumerate(_padded(image, attributes["padding"])):
        reach = attributes["dilation"][i] * (weight[2 + i] - 1) + 1
        need(reach <= size, f"its kernel {weight[2:]} is larger than its padded input {image}")
        sizes.append((size - reach) // attributes["stride"][i] + 1)
    return weight[0], *sizes


def _pool2d(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    image, sizes = _image(inputs[0]), []
    for i, size in enumerate(_padded(image, attributes["padding"])):
        kernel, stride = attributes["kernel"][i], attributes["stride"][i]
        pad = attributes["padding"][i]
        need(2 * pad <= kernel, "its padding is more than half of its kernel")
        spare = size - attributes.get("dilation", (1, 1))[i] * (kernel - 1) - 1
        # With `ceil` a window may be a little larger than what it looks at.
        need(spare >= -size - 64, f"its kernel is far larger than its padded input {image}")
        count = (spare + (stride - 1 if attributes["ceil"] else 0)) // stride + 1
        # A window that would start in the padding behind the input does not exist.
        if attributes["ceil"] and (count - 1) * stride >= image[1 + i] + pad:
            count -= 1
        need(count >= 1, f"its kernel is larger than its padded input {image}")
        sizes.append(count)
    return image[0], *sizes


def _adaptive(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    return _image(inputs[0])[0], *attributes["size"]


def _linear(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,), weight = inputs, arrays["weight"]
    fits = len(weight) == 2 and len(shape) > 0 and shape[-1] == weight[1]
    need(fits, f"its weight {weight} does not fit its input {shape}")
    _vectors(arrays, weight[0], ("bias",))
    return *shape[:-1], weight[0]


def _batch_norm(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,) = inputs
    need(len(shape) > 0, "its input has no channels")
    _vectors(arrays, shape[0], ("mean", "var", "weight", "bias"))
    return shape


def _layer_norm(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,), axes = inputs, attributes["axes"]
    need(axes <= len(shape), f"its input {shape} has no {axes} axes")
    for role, found in arrays.items():
        need(found == shape[-axes:], f"its {role} has shape {found}, not {shape[-axes:]}")
    return shape


def _same(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    return inputs[0]


def _prelu(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,), weight = inputs, arrays["weight"]
    fits = weight in ((), (1,), shape[:1])
    need(fits, f"its weight {weight} is neither one number nor one a channel of {shape}")
    return shape


def _along(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    _axis(inputs[0], attributes["axis"])
    return inputs[0]


def _mean(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,), axes = inputs, attributes["axes"]
    chosen = {_axis(shape, axis) for axis in axes}
    need(0 < len(axes) == len(chosen), "its axes are none or repeated")
    if attributes["keep"]:
        return tuple(1 if i in chosen else extent for i, extent in enumerate(shape))
    return tuple(extent for i, extent in enumerate(shape) if i not in chosen)


def _broadcast(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    first, second = inputs
    # With another number of axes one's batch would meet the other's channels.
    fits = len(first) == len(second) and all(
        1 in (a, b) or a == b for a, b in zip(first, second, strict=True)
    )
    need(fits, f"its inputs {first} and {second} do not fit each other")
    return tuple(map(max, zip(first, second, strict=True)))


def _with_array(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,), weight = inputs, arrays["weight"]
    whole = (1, *shape)
    fits = len(weight) <= len(whole) and all(
        extent in (1, whole[i - len(weight)]) for i, extent in enumerate(weight)
    )
    need(fits, f"its weight {weight} does not broadcast to its input {shape}")
    return shape


def _concat(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    axis = _axis(inputs[0], attributes["axis"])
    for shape in inputs:
        fits = len(shape) == len(inputs[0]) and all(
            i == axis or a == b for i, (a, b) in enumerate(zip(shape, inputs[0], strict=True))
        )
        need(fits, f"its inputs {inputs[0]} and {shape} do not fit along axis {axis + 1}")
    return *inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :]


def _reshape(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    shape = bounded(tuple(attributes["shape"]))
    fits = math.prod(shape) == math.prod(inputs[0])
    need(fits, f"its shape {shape} has not the elements of its input {inputs[0]}")
    return shape


def _permute(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,), axes = inputs, attributes["axes"]
    fits = sorted(axes) == list(range(len(shape) + 1)) and axes[0] == 0
    need(fits, f"its axes {axes} are no order of all axes, the batch first")
    return tuple(shape[axis - 1] for axis in axes[1:])


def _slice(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,), start, stop = inputs, attributes["start"], attributes["stop"]
    axis = _axis(shape, attributes["axis"])
    need(start < stop <= shape[axis], f"{start} to {stop} is no part of axis {axis + 1} of {shape}")
    return *shape[:axis], -(-(stop - start) // attributes["step"]), *shape[axis + 1 :]


def _pad(inputs: list[Shape], arrays: Arrays, attributes: Attributes) -> Shape:
    (shape,), before, after = inputs, attributes["before"], attributes["after"]
    fits = len(before) == len(after) == len(shape)
    need(fits, f"before and after do not pad each axis of {shape}")
    return tuple(map(sum, zip(before, shape, after, strict=True)))


_ACTIVATION = Operation(_same)
_WINDOW = {"kernel": _SIZES, "stride": _SIZES, "padding": _OFFSETS, "ceil": _FLAG}
_BINARY = Operation(_broadcast, inputs=2)
_SCALAR = Operation(_same, attributes={"value": _NUMBER})
_ARRAY = Operation(_with_array, required=("weight",))
_RESHAPE = Operation(_reshape, attributes={"shape": WHOLES})
_SOFTMAX = Operation(_along, attributes={"axis": _POSITIVE})
_PLAIN = (
    *("relu", "relu6", "hardswish", "hardsigmoid"),
    *("sigmoid", "tanh", "silu", "mish", "softplus"),
)

OPERATIONS: Mapping[str, Operation] = {
    **dict.fromkeys(_PLAIN, _ACTIVATION),
    "conv2d": Operation(
        _conv2d,
        required=("weight",),
        optional=("bias",),
        attributes={"stride": _SIZES, "padding": _OFFSETS, "dilation": _SIZES, "groups": _POSITIVE},
    ),
    "linear": Operation(_linear, required=("weight",), optional=("bias",)),
    "batch_norm": Operation(
        _batch_norm,
        required=("mean", "var"),
        optional=("weight", "bias"),
        attributes={"eps": _EPS},
    ),
    "layer_norm": Operation(
        _layer_norm, optional=("weight", "bias"), attributes={"axes": _POSITIVE, "eps": _EPS}
    ),
    "leaky_relu": Operation(_same, attributes={"slope": _NUMBER}),
    "elu": Operation(_same, attributes={"alpha": _NUMBER}),
    "gelu": Operation(_same, attributes={"tanh": _FLAG}),
    "clamp": Operation(_same, attributes={"low": _LIMIT, "high": _LIMIT}),
    "prelu": Operation(_prelu, required=("weight",)),
    "softmax": _SOFTMAX,
    "log_softmax": _SOFTMAX,
    "max_pool2d": Operation(_pool2d, attributes={**_WINDOW, "dilation": _SIZES}),
    "avg_pool2d": Operation(_pool2d, attributes={**_WINDOW, "count_padding": _FLAG}),
    "adaptive_avg_pool2d": Operation(_adaptive, attributes={"size": _SIZES}),
    "mean": Operation(_mean, attributes={"axes": WHOLES, "keep": _FLAG}),
    "add": _BINARY,
    "sub": _BINARY,
    "mul": _BINARY,
    "add_scalar": _SCALAR,
    "mul_scalar": _SCALAR,
    "add_array": _ARRAY,
    "mul_array": _ARRAY,
    "concat": Operation(_concat, inputs=None, attributes={"axis": _POSITIVE}),
    "flatten": _RESHAPE,
    "reshape": _RESHAPE,
    "permute": Operation(_permute, attributes={"axes": WHOLES}),
    "slice": Operation(
        _slice,
        attributes={"axis": _POSITIVE, "start": _NATURAL, "stop": _NATURAL, "step": _POSITIVE},
    ),
    "pad": Operation(_pad, attributes={"before": WHOLES, "after": WHOLES, "value": _NUMBER}),
}
