"""Shapes against what NumPy or a count of windows gives; and every rule broken once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow_runtime import operations
from regrow_runtime.check_graph import check_graph
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.graph import Graph, Node

Shape = tuple[int, ...]

small = st.integers(1, 5)
shapes = st.lists(small, min_size=1, max_size=4).map(tuple)
pairs = st.tuples(small, small).map(list)


def shape_after(
    op: str,
    *inputs: Shape,
    arrays: Mapping[str, Shape] | None = None,
    **attributes: Any,
) -> Shape:
    names = tuple(f"x{i}" for i in range(len(inputs)))
    arrays = arrays or {}
    node = Node(op, names, "y", {role: f"a.{role}" for role in arrays}, attributes, "the.module")
    graph = Graph(
        tuple((name, shape, "float32") for name, shape in zip(names, inputs, strict=True)),
        ("y",),
        (node,),
    )
    kinds = {f"a.{role}": (shape, "float32") for role, shape in arrays.items()}
    return check_graph(graph, kinds)["y"]


def refused(op: str, *inputs: Shape, **rest: Any) -> str:
    with pytest.raises(RuntimeFileError) as caught:
        shape_after(op, *inputs, **rest)
    assert f"node 0 ({op} of 'the.module'): " in str(caught.value)
    return str(caught.value)


def batch(shape: Shape) -> np.ndarray:
    """A batch of two values of that shape."""
    return np.zeros((2, *shape), np.float32)


@given(shapes, st.data())
@settings(max_examples=60, deadline=None)
def test_operations_that_numpy_has(shape: Shape, data: Any) -> None:
    rank = len(shape)
    axis = data.draw(st.integers(1, rank))
    order = [0, *data.draw(st.permutations(range(1, rank + 1)))]
    assert shape_after("permute", shape, axes=order) == batch(shape).transpose(order).shape[1:]

    start = data.draw(st.integers(0, shape[axis - 1] - 1))
    stop = data.draw(st.integers(start + 1, shape[axis - 1]))
    step = data.draw(small)
    part = batch(shape)[(slice(None),) * axis + (slice(start, stop, step),)]
    cut = {"axis": axis, "start": start, "stop": stop, "step": step}
    assert shape_after("slice", shape, **cut) == part.shape[1:]

    before, after = ([data.draw(st.integers(0, 3)) for _ in shape] for _ in range(2))
    wider = np.pad(batch(shape), [(0, 0), *zip(before, after, strict=True)])
    found = shape_after("pad", shape, before=before, after=after, value=0.0)
    assert found == wider.shape[1:]

    axes = data.draw(st.lists(st.integers(1, rank), min_size=1, unique=True))
    for keep in (True, False):
        reduced = batch(shape).mean(axis=tuple(axes), keepdims=keep)
        assert shape_after("mean", shape, axes=axes, keep=keep) == reduced.shape[1:]

    sizes = data.draw(st.lists(small, min_size=1, max_size=3))
    parts = [(*shape[: axis - 1], size, *shape[axis:]) for size in sizes]
    joined = np.concatenate([batch(part) for part in parts], axis)
    assert shape_after("concat", *parts, axis=axis) == joined.shape[1:]

    other = tuple(data.draw(st.sampled_from([1, extent])) for extent in shape)
    for op, sides in itertools.product(("add", "sub", "mul"), ((shape, other), (other, shape))):
        first, second = map(batch, sides)
        assert shape_after(op, *sides) == (first + second).shape[1:]
    for op, count in itertools.product(("add_array", "mul_array"), range(rank + 1)):
        weight = other[rank - count :]
        assert shape_after(op, shape, arrays={"weight": weight}) == shape
    assert shape_after("add_array", shape, arrays={"weight": (1, *other)}) == shape

    features, weight = data.draw(small), np.zeros((3, shape[-1]))
    arrays = {"weight": (features, shape[-1]), "bias": (features,)}
    assert shape_after("linear", shape, arrays=arrays) == (*shape[:-1], features)
    assert (batch(shape) @ weight.T).shape[1:] == shape_after(
        "linear", shape, arrays={"weight": weight.shape}
    )
    flat = [math.prod(shape)]
    for op, wanted in (("flatten", flat), ("reshape", [1, *reversed(shape)])):
        assert list(shape_after(op, shape, shape=wanted)) == wanted


def windows(extent: int, kernel: int, stride: int, pad: int, dilation: int, ceil: bool) -> int:
    """How many windows a pooling or convolution has, by trying one position after the other."""
    count = 0
    while True:
        start = count * stride - pad
        last = start + dilation * (kernel - 1)
        if last > extent - 1 + pad:
            # One more may reach over the end, if it starts before it, and a stride before it a
            # whole window would still begin.
            reaches = ceil and start < extent and last - stride < extent - 1 + pad
            return count + reaches
        count += 1


geometry = st.fixed_dictionaries(
    {"kernel": pairs, "stride": pairs, "dilation": pairs, "padding": pairs, "ceil": st.booleans()}
)


@given(st.tuples(small, st.integers(1, 12), st.integers(1, 12)), geometry)
@settings(max_examples=300, deadline=None)
def test_windows_are_those_that_fit(image: Shape, given_: dict[str, Any]) -> None:
    pool = {**given_, "padding": [p % (k // 2 + 1) for p, k in zip(
        given_["padding"], given_["kernel"], strict=True)]}  # fmt: skip
    flat = {key: value for key, value in pool.items() if key != "dilation"}
    conv = {key: given_[key] for key in ("stride", "padding", "dilation")} | {"groups": 1}
    arrays = {"weight": (2, image[0], *given_["kernel"])}
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("max_pool2d", pool, pool),
        ("avg_pool2d", {**flat, "count_padding": True}, {**flat, "dilation": [1, 1]}),
        ("conv2d", {**conv, "arrays": arrays}, {**given_, "ceil": False}),
    ]
    for op, rest, g in cases:
        counts = tuple(
            windows(
                image[1 + i],
                *(g[key][i] for key in ("kernel", "stride", "padding", "dilation")),
                g["ceil"],
            )
            for i in range(2)
        )
        if min(counts) < 1:
            assert "larger than its padded input" in refused(op, image, **rest)
        else:
            channels = 2 if op == "conv2d" else image[0]
            assert shape_after(op, image, **rest) == (channels, *counts)


PLAIN = ["relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "mish", "softplus"]
IMAGE = (6, 7, 5)
KEEPS: dict[str, dict[str, Any]] = {
    **{op: {} for op in PLAIN},
    "leaky_relu": {"slope": 0.1},
    "elu": {"alpha": 1},
    "gelu": {"tanh": False},
    "clamp": {"low": None, "high": 6},
    "prelu": {"arrays": {"weight": (6,)}},
    "softmax": {"axis": 3},
    "log_softmax": {"axis": 1},
    "batch_norm": {"arrays": {"mean": (6,), "var": (6,), "bias": (6,)}, "eps": 1e-5},
    "layer_norm": {"arrays": {"weight": (7, 5)}, "axes": 2, "eps": 0},
    "add_scalar": {"value": -1},
    "mul_scalar": {"value": 0.5},
}


@pytest.mark.parametrize("op", KEEPS)
def test_operations_that_keep_the_shape(op: str) -> None:
    assert shape_after(op, IMAGE, **KEEPS[op]) == IMAGE


def test_others() -> None:
    assert shape_after("adaptive_avg_pool2d", IMAGE, size=[2, 3]) == (6, 2, 3)
    for weight in ((), (1,)):
        assert shape_after("prelu", IMAGE, arrays={"weight": weight}) == IMAGE
    grouped = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 3}
    arrays = {"weight": (9, 2, 1, 1), "bias": (9,)}
    assert shape_after("conv2d", IMAGE, arrays=arrays, **grouped) == (9, 7, 5)
    tested = {"conv2d", "linear", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "add"}
    tested |= {"sub", "mul", "add_array", "mul_array", "concat", "flatten", "reshape", "permute"}
    assert tested | {"slice", "pad"} | set(KEEPS) == set(operations.OPERATIONS)


CONV = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
POOL = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1], "ceil": False}
WEIGHT = {"weight": (4, 6, 3, 3)}
NORM = {"mean": (6,), "var": (6,)}
CUT = {"axis": 1, "start": 0, "stop": 2, "step": 1}

REFUSED: list[tuple[str, list[Shape], dict[str, Any], str]] = [
    ("conv2d", [(7, 5)], {**CONV, "arrays": WEIGHT}, "channels, height and width"),
    ("conv2d", [IMAGE], {**CONV, "arrays": {"weight": (4, 6, 3)}}, "four axes"),
    ("conv2d", [IMAGE], {**CONV, "arrays": {"weight": (4, 5, 3, 3)}}, "does not fit"),
    ("conv2d", [IMAGE], {**CONV, "arrays": {"weight": (4, 6, 0, 3)}}, "does not fit"),
    ("conv2d", [IMAGE], {**CONV, "arrays": {"weight": (0, 6, 3, 3)}}, "does not fit"),
    ("conv2d", [IMAGE], {**CONV, "groups": 3, "arrays": {"weight": (4, 2, 1, 1)}}, "3 groups"),
    ("conv2d", [IMAGE], {**CONV, "arrays": {**WEIGHT, "bias": (1,)}}, "its bias has shape"),
    ("conv2d", [IMAGE], {**CONV, "arrays": {"bias": (4,)}}, "its arrays are"),
    ("conv2d", [IMAGE], {**CONV, "arrays": {**WEIGHT, "mean": (4,)}}, "its arrays are"),
    ("conv2d", [IMAGE], {**CONV, "padding": [2**30, 0], "arrays": WEIGHT}, "too large"),
    ("conv2d", [IMAGE], {**CONV, "dilation": [4, 4], "arrays": WEIGHT}, "larger than its padded"),
    ("linear", [()], {"arrays": {"weight": (2, 3)}}, "does not fit"),
    ("linear", [(4,)], {"arrays": {"weight": (2, 3)}}, "does not fit"),
    ("linear", [(3,)], {"arrays": {"weight": (0, 3)}}, "no elements"),
    ("linear", [(3,)], {"arrays": {"weight": (2**30, 3)}}, "too large"),
    ("batch_norm", [()], {"arrays": NORM, "eps": 0.1}, "no channels"),
    ("batch_norm", [(5, 6)], {"arrays": NORM, "eps": 0.1}, "its mean has shape"),
    ("batch_norm", [IMAGE], {"arrays": {"mean": (6,)}, "eps": 0.1}, "its arrays are"),
    ("batch_norm", [IMAGE], {"arrays": NORM, "eps": -0.1}, "its eps is not"),
    ("layer_norm", [(2, 3)], {"axes": 3, "eps": 0.1}, "has no 3 axes"),
    ("layer_norm", [(2, 3)], {"axes": 1, "eps": 0.1, "arrays": {"bias": (2,)}}, "its bias has"),
    ("prelu", [IMAGE], {"arrays": {"weight": (7,)}}, "neither one number"),
    ("softmax", [(2, 3)], {"axis": 3}, "axis 3 does not exist"),
    ("softmax", [(2, 3)], {"axis": 0}, "its axis is not a positive"),
    ("max_pool2d", [IMAGE], {**POOL, "padding": [2, 0]}, "more than half"),
    ("max_pool2d", [IMAGE], {**POOL, "kernel": [8, 1]}, "larger than its padded"),
    ("max_pool2d", [IMAGE], {**POOL, "stride": [0, 1]}, "its stride is not two"),
    ("avg_pool2d", [IMAGE], POOL, "its attributes are"),
    ("adaptive_avg_pool2d", [IMAGE], {"size": [2**20, 2**20]}, "too large"),
    ("mean", [(2, 3)], {"axes": [], "keep": True}, "none or repeated"),
    ("mean", [(2, 3)], {"axes": [1, 1], "keep": True}, "none or repeated"),
    ("mean", [(2, 3)], {"axes": [0], "keep": True}, "axis 0 does not exist"),
    ("add", [(2, 3), (3,)], {}, "do not fit each other"),
    ("add", [(2, 3), (3, 2)], {}, "do not fit each other"),
    ("add", [(2, 3)], {}, "it has 1 inputs"),
    ("relu", [(2,), (2,)], {}, "it has 2 inputs"),
    ("concat", [], {"axis": 1}, "has no input"),
    ("mul", [(2**15, 1), (1, 2**15)], {}, "too large"),
    ("add_array", [(2, 3)], {"arrays": {"weight": (2,)}}, "does not broadcast"),
    ("add_array", [(2, 1)], {"arrays": {"weight": (2, 3)}}, "does not broadcast"),
    ("add_array", [(2, 3)], {"arrays": {"weight": (2, 2, 3)}}, "does not broadcast"),
    ("add_array", [(2, 3)], {"arrays": {"weight": (1, 1, 2, 3)}}, "does not broadcast"),
    ("concat", [(2, 3), (2, 4)], {"axis": 1}, "do not fit along axis 1"),
    ("concat", [(2, 3), (2,)], {"axis": 1}, "do not fit along axis 1"),
    ("concat", [(2**27,)] * 3, {"axis": 1}, "too large"),
    ("reshape", [(2, 3)], {"shape": [7]}, "has not the elements"),
    ("reshape", [(2, 3)], {"shape": [0]}, "no elements"),
    ("reshape", [(2, 3)], {"shape": [-1]}, "its shape is not"),
    ("reshape", [(2, 3)], {"shape": [6] + [1] * 8}, "more than 8 axes"),
    ("reshape", [(1,)], {"shape": [2**30] * 4}, "too large"),
    ("permute", [(2, 3)], {"axes": [1, 0, 2]}, "the batch first"),
    ("permute", [(2, 3)], {"axes": [0, 1]}, "no order"),
    ("permute", [(2, 3)], {"axes": [0, 1, 1]}, "no order"),
    ("slice", [(2, 3)], {**CUT, "stop": 3}, "0 to 3 is no part"),
    ("slice", [(2, 3)], {**CUT, "start": 2}, "2 to 2 is no part"),
    ("slice", [(2, 3)], {**CUT, "step": 0}, "its step is not"),
    ("slice", [(2, 3)], {**CUT, "start": -1}, "its start is not"),
    ("pad", [(2, 3)], {"before": [1], "after": [1, 1], "value": 0}, "do not pad each axis"),
    ("pad", [(2,)], {"before": [2**30], "after": [0], "value": 0}, "too large"),
    ("pad", [(2,)], {"before": [-1], "after": [2], "value": 0}, "its before is not"),
    ("relu", [(2,)], {"slope": 1}, "its attributes are"),
    ("clamp", [(2,)], {"low": None}, "its attributes are"),
]


@pytest.mark.parametrize(
    ("op", "inputs", "rest", "reason"),
    REFUSED,
    ids=[f"{i}-{one[0]}" for i, one in enumerate(REFUSED)],
)
def test_what_does_not_fit(op: str, inputs: list[Shape], rest: dict[str, Any], reason: str) -> None:
    if inputs:
        assert reason in refused(op, *inputs, **rest)
    else:
        with pytest.raises(RuntimeFileError, match=reason):
            shape_after(op, **rest)


JUNK: list[Any] = [
    *(
        None,
        True,
        "1",
        "",
        1.5,
        -1,
        2**31,
        10**400,
        math.nan,
        math.inf,
        -1e39,
        {},
        [],
        [1],
        [1, 1, 1],
    ),
    *([True, True], [1.0, 1], ["a", "b"], [None, None], [[1], [1]], [-1, -1], [2**31, 1]),
    *(np.int64(1), np.ones(2)),
]


GOOD = {op: rest for op, _, rest, _ in REFUSED} | KEEPS
WITH_ATTRIBUTES = [op for op in sorted(GOOD) if operations.OPERATIONS[op].attributes]


@pytest.mark.parametrize("op", WITH_ATTRIBUTES)
def test_attributes_of_other_types(op: str) -> None:
    """Whatever an attribute holds, the answer is a shape or a RuntimeFileError."""
    good = GOOD[op]
    attributes = [key for key in operations.OPERATIONS[op].attributes if key in good]
    refusals = 0
    for key, junk in itertools.product(attributes, JUNK):
        try:
            shape_after(op, IMAGE, **{**good, key: junk})
        except RuntimeFileError:
            refusals += 1
    assert refusals >= (len(JUNK) - 10) * len(attributes)
