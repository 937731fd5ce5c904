"""From ATen operators to the runtime's operations: one small function each, and one table.

A translation takes the `Site` of an operator and the operator's arguments, by position as in its
ATen schema, with every tensor replaced by what is known of it: a `Value`, an `Array` or a
`Computed`. It appends nodes and returns the name of the value that holds the result, or one name
for each of several results. It raises RegrowError with a short reason if the runtime has no
operation for these arguments; the caller adds the operator's name and place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from regrow.export.capture_layers import LAYERS
from regrow.export.capture_site import (
    Array,
    Computed,
    Result,
    Site,
    Translation,
    Value,
    as_array,
    as_axis,
    as_number,
    as_value,
    need,
)

aten = torch.ops.aten


def _with_constant(at: Site, op: str, name: str, shape: tuple[int, ...], other: Any) -> str:
    """`add` or `mul` of the value `name`, of that shape, and a number or an array."""
    if isinstance(other, (Array, Computed)):
        repeated = other.repeated if isinstance(other, Computed) else None
        array = as_array(repeated or other, "operand")
        need(shape == at.shape, f"{array} would enlarge the value that it meets")
        return at.emit(f"{op}_array", name, arrays={"weight": array})
    return at.emit(f"{op}_scalar", name, value=as_number(other))


def _scaled(at: Site, value: Value, factor: Any) -> str:
    number = as_number(factor)
    return value.name if number == 1 else at.emit("mul_scalar", value.name, value=number)


def add(at: Site, a: Any, b: Any, *, alpha: Any = 1) -> str:
    if not isinstance(b, Value):
        a = as_value(a)
        if isinstance(b, (Array, Computed)):
            need(alpha == 1, f"alpha is {alpha} and multiplies an operand that is no value")
            return _with_constant(at, "add", a.name, a.shape, b)
        return at.emit("add_scalar", a.name, value=as_number(alpha * b))
    term = _scaled(at, b, alpha)
    if isinstance(a, Value):
        return at.emit("add", a.name, term)
    return _with_constant(at, "add", term, b.shape, a)


def sub(at: Site, a: Any, b: Any, *, alpha: Any = 1) -> str:
    if isinstance(a, Value) and isinstance(b, Value):
        return at.emit("sub", a.name, _scaled(at, b, alpha))
    if isinstance(b, (Array, Computed)):
        # Changing a sign is exact, so a - b is -(b - a) to the bit.
        need(alpha == 1, f"alpha is {alpha} and multiplies an operand that is no value")
        value = as_value(a)
        difference = _with_constant(at, "add", _scaled(at, value, -1), value.shape, b)
        return at.emit("mul_scalar", difference, value=-1.0)
    return add(at, a, b, alpha=-as_number(alpha))


def rsub(at: Site, a: Any, b: Any, alpha: Any = 1) -> str:
    return sub(at, b, a, alpha=alpha)


def mul(at: Site, a: Any, b: Any) -> str:
    if isinstance(a, Value) and isinstance(b, Value):
        return at.emit("mul", a.name, b.name)
    a, b = (a, b) if isinstance(a, Value) else (b, a)
    value = as_value(a)
    return _with_constant(at, "mul", value.name, value.shape, b)


def div(at: Site, a: Any, b: Any) -> str:
    need(not isinstance(b, (Value, Array, Computed)), "it divides by a tensor")
    need(b != 0, "it divides by zero")
    return at.emit("mul_scalar", as_value(a).name, value=as_number(1 / b))


def neg(at: Site, x: Any) -> str:
    return at.emit("mul_scalar", as_value(x).name, value=-1.0)


def concat(at: Site, xs: Sequence[Any], dim: int = 0) -> str:
    values = [as_value(x) for x in xs]
    if len(values) == 1:
        return values[0].name
    return at.emit("concat", *(one.name for one in values), axis=as_axis(dim, values[0]))


def identity(at: Site, x: Any, *_: Any, **__: Any) -> str:
    return as_value(x).name


def reshape(at: Site, x: Any, *_: Any) -> str:
    """Every operator that keeps the elements in their order; the result's shape says the rest."""
    value = as_value(x)
    if value.shape == at.shape:
        return value.name
    return at.emit("reshape", value.name, shape=list(at.shape))


def expand(at: Site, x: Any, *_: Any, **__: Any) -> str:
    value = as_value(x)
    need(value.shape == at.shape, "it repeats a value")
    return value.name


def permute(at: Site, x: Any, dims: Sequence[int]) -> str:
    value = as_value(x)
    axes = [axis % len(dims) for axis in dims]
    need(axes[0] == 0, "it moves the batch axis")
    return value.name if axes == sorted(axes) else at.emit("permute", value.name, axes=axes)


def transpose(at: Site, x: Any, first: int = 0, second: int = 1) -> str:
    axes = list(range(len(as_value(x).shape) + 1))
    axes[first], axes[second] = axes[second], axes[first]
    return permute(at, x, axes)


def _cut(at: Site, value: Value, axis: int, start: int, stop: int, step: int = 1) -> str:
    if (start, stop, step) == (0, value.shape[axis - 1], 1):
        return value.name
    return at.emit("slice", value.name, axis=axis, start=start, stop=stop, step=step)


def slice_(
    at: Site, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> str:
    value = as_value(x)
    if dim % (len(value.shape) + 1) == 0:
        # The result has the whole batch, or its shape would have been refused.
        return value.name
    axis = as_axis(dim, value)
    return _cut(at, value, axis, *slice(start, end, step).indices(value.shape[axis - 1]))


def select(at: Site, x: Any, dim: int, index: int) -> str:
    value = as_value(x)
    axis = as_axis(dim, value)
    index %= value.shape[axis - 1]
    return at.emit("reshape", _cut(at, value, axis, index, index + 1), shape=list(at.shape))


def split(at: Site, x: Any, sizes: int | Sequence[int], dim: int = 0) -> Result:
    value = as_value(x)
    axis = as_axis(dim, value)
    length = value.shape[axis - 1]
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)]
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return tuple(
        _cut(at, value, axis, end - size, end) if index in at.used else None
        for index, (size, end) in enumerate(zip(sizes, ends, strict=True))
    )


def unbind(at: Site, x: Any, dim: int = 0) -> Result:
    value = as_value(x)
    axis = as_axis(dim, value)
    shape = [*value.shape[: axis - 1], *value.shape[axis:]]
    return tuple(
        at.emit("reshape", _cut(at, value, axis, index, index + 1), shape=shape)
        if index in at.used
        else None
        for index in range(value.shape[axis - 1])
    )


def pad(at: Site, x: Any, widths: Sequence[int], mode: str = "constant", fill: Any = None) -> str:
    value = as_value(x)
    need(mode == "constant", f"its mode is {mode}")
    need(min(widths, default=0) >= 0, "it crops by a negative width")
    axes = len(value.shape)
    # Pairs stand from the last axis on; the batch axis, if it has a pair, gets nothing.
    pairs = [(widths[i], widths[i + 1]) for i in range(0, min(len(widths), 2 * axes), 2)]
    pairs = [*[(0, 0)] * (axes - len(pairs)), *reversed(pairs)]
    before, after = [list(side) for side in zip(*pairs, strict=True)]
    return at.emit("pad", value.name, before=before, after=after, value=as_number(fill or 0.0))


TABLE: dict[Any, Translation] = {
    **LAYERS,
    aten.add.Tensor: add,
    aten.sub.Tensor: sub,
    aten.rsub.Scalar: rsub,
    aten.mul.Tensor: mul,
    aten.div.Tensor: div,
    aten.neg.default: neg,
    aten.cat.default: concat,
    aten.concat.default: concat,
    aten.view.default: reshape,
    aten._unsafe_view.default: reshape,
    aten.unsqueeze.default: reshape,
    aten.squeeze.default: reshape,
    aten.squeeze.dim: reshape,
    aten.squeeze.dims: reshape,
    aten.expand.default: expand,
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.t.default: transpose,
    aten.slice.Tensor: slice_,
    aten.select.int: select,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split,
    aten.unbind.int: unbind,
    aten.pad.default: pad,
    aten.alias.default: identity,
    aten.clone.default: identity,
    aten.detach.default: identity,
    aten.type_as.default: identity,
    aten._to_copy.default: identity,
}

# Those whose numbers the shape of the result says again.
SHAPED = [target for target, translation in TABLE.items() if translation in (reshape, expand)]

# What to say of operators that users do not write under these names.
_PARTS = "it writes into a part of a tensor"
_BATCH = "it normalises by the batch's own mean and variance"
HINTS = {
    aten.slice_scatter.default: _PARTS,
    aten.select_scatter.default: _PARTS,
    aten._native_batch_norm_legit.no_stats: _BATCH,
    aten._native_batch_norm_legit_functional.default: _BATCH,
    aten.native_dropout.default: "it drops out in evaluation mode too",
}
