"""Every operation but convolutions against NumPy in float64."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import Array, Contents
from regrow_runtime.graph import Graph, Node
from regrow_runtime.network import Network

Floats = np.ndarray[Any, Any]


def run(
    nodes: list[Node], inputs: dict[str, Floats], arrays: dict[str, Floats] | None = None
) -> Any:
    """The last node's value, computed with two threads."""
    described = tuple((name, x.shape[1:], "float32") for name, x in inputs.items())
    stored = {
        name: Array(np.asarray(array, np.float32), "float32")
        for name, array in (arrays or {}).items()
    }
    graph = Graph(described, (nodes[-1].output,), tuple(nodes))
    return Network(Contents(stored, graph, {}), threads=2)(*inputs.values())


def data(*shape: int, seed: int = 0) -> Floats:
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def same(found: Floats, expected: Floats) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


UNARY: dict[str, tuple[dict[str, Any], Callable[[Floats], Floats]]] = {
    "relu": ({}, lambda x: np.maximum(x, 0)),
    "relu6": ({}, lambda x: np.clip(x, 0, 6)),
    "sigmoid": ({}, sigmoid),
    "tanh": ({}, np.tanh),
    "silu": ({}, lambda x: x * sigmoid(x)),
    "hardswish": ({}, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "hardsigmoid": ({}, lambda x: np.clip(x + 3, 0, 6) / 6),
    "mish": ({}, lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "softplus": ({}, lambda x: np.log1p(np.exp(x))),
    "leaky_relu": ({"slope": 0.1}, lambda x: np.where(x < 0, 0.1 * x, x)),
    "elu": ({"alpha": 0.7}, lambda x: np.where(x < 0, 0.7 * np.expm1(x), x)),
    "gelu": ({"tanh": False}, lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2),
    "clamp": ({"low": -1.0, "high": None}, lambda x: np.maximum(x, -1)),
    "add_scalar": ({"value": 0.3}, lambda x: x + 0.3),
    "mul_scalar": ({"value": -1.7}, lambda x: x * -1.7),
}


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (4, 5, 6), (2, 3, 4, 5)])
def test_of_one_value(op: str, shape: tuple[int, ...]) -> None:
    attributes, function = UNARY[op]
    x = data(18, *shape)
    same(run([Node(op, ("x",), "y", {}, attributes)], {"x": x}), function(x.astype(float)))


def test_tanh_form_of_gelu() -> None:
    x = data(3, 20)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x.astype(float) ** 3)
    same(
        run([Node("gelu", ("x",), "y", {}, {"tanh": True})], {"x": x}), x * (1 + np.tanh(inner)) / 2
    )


def test_prelu_has_a_slope_per_channel() -> None:
    x, slope = data(4, 3, 5, 2), np.array([0.5, -1.0, 0.0], np.float32)
    expected = np.where(x < 0, slope[:, None, None] * x, x)
    same(run([Node("prelu", ("x",), "y", {"weight": "w"})], {"x": x}, {"w": slope}), expected)


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
@pytest.mark.parametrize(
    ("a", "b"),
    [((4, 5, 6), (4, 5, 6)), ((4, 5, 6), (4, 1, 1)), ((1, 5, 1), (4, 1, 6)), ((7,), (1,))],
)
def test_of_two_values(op: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = data(5, *a), data(5, *b, seed=1)
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[op]
    found = run([Node(op, ("x", "y"), "z")], {"x": x, "y": y})
    same(found, function(x.astype(float), y))


@pytest.mark.parametrize("shape", [(6,), (5, 1), (4, 1, 1), (1, 5, 6), (1, 4, 1, 6)])
def test_with_an_array(shape: tuple[int, ...]) -> None:
    x, w = data(5, 4, 5, 6), data(*shape, seed=1)
    for op, function in (("add_array", np.add), ("mul_array", np.multiply)):
        found = run([Node(op, ("x",), "y", {"weight": "w"})], {"x": x}, {"w": w})
        same(found, function(x.astype(float), w))


def test_values_without_axes() -> None:
    x, w = data(7, 5), np.array([0.25], np.float32)
    nodes = [
        Node("mean", ("x",), "m", {}, {"axes": [1], "keep": False}),
        Node("add_array", ("m",), "a", {"weight": "w"}),
        Node("mul_array", ("a",), "b", {"weight": "s"}),
        Node("prelu", ("b",), "y", {"weight": "w"}),
    ]
    m = (x.astype(float).mean(1) + 0.25) * 3
    arrays = {"w": w, "s": np.array(3, np.float32)}
    same(run(nodes, {"x": x}, arrays), np.where(m < 0, 0.25 * m, m))


def test_crossed_limits_of_a_clamp_are_the_upper_one() -> None:
    x = data(3, 6)
    found = run([Node("clamp", ("x",), "y", {}, {"low": 4.0, "high": 1.0})], {"x": x})
    np.testing.assert_array_equal(found, np.ones_like(x))


def test_a_forked_process_computes_too() -> None:
    x = data(2, 8)
    graph = Graph((("x", (8,), "float32"),), ("y",), (Node("relu", ("x",), "y"),))
    network = Network(Contents({}, graph, {}), threads=2)
    expected = network(x)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if np.array_equal(network(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_small_file_cannot_ask_for_any_memory() -> None:
    wide = {"before": [0, 0, 0], "after": [0, 0, 2**27 - 1], "value": 0.0}
    grown = [Node("pad", ("x",), f"p{i}", {}, wide) for i in range(40)]
    first = {"axis": 3, "start": 0, "stop": 1, "step": 1}
    small = [Node("slice", (f"p{i}",), f"y{i}", {}, first) for i in range(40)]
    outputs = tuple(node.output for node in small)
    graph = Graph((("x", (1, 1, 1), "float32"),), outputs, (*grown, *small))
    with pytest.raises(RuntimeFileError, match="GiB"):
        Network(Contents({}, graph, {}), threads=1)(np.zeros((1, 1, 1, 1), np.float32))


@settings(max_examples=60, deadline=None)
@given(
    st.booleans(),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    st.booleans(),
    st.booleans(),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.integers(1, 17),
)
def test_pooling(
    mean: bool,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padded: tuple[float, float],
    ceil: bool,
    count: bool,
    more: tuple[int, int],
    batch: int,
) -> None:
    padding = [int(k * p) for k, p in zip(kernel, padded, strict=True)]
    attributes: dict[str, Any] = {
        "kernel": list(kernel),
        "stride": list(stride),
        "padding": padding,
        "ceil": ceil,
    }
    attributes |= {"count_padding": count} if mean else {"dilation": list(dilation)}
    reach = [(k - 1) * (1 if mean else d) + 1 for k, d in zip(kernel, dilation, strict=True)]
    x = data(batch, 3, reach[0] + more[0], reach[1] + more[1])
    op = "avg_pool2d" if mean else "max_pool2d"
    same(
        run([Node(op, ("x",), "y", {}, attributes)], {"x": x}),
        oracle.pool(x.astype(float), attributes, mean),
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 9)])
def test_adaptive_pooling(size: tuple[int, int]) -> None:
    x = data(3, 2, 7, 9)
    expected = np.zeros((3, 2, *size))
    for i in range(size[0]):
        for j in range(size[1]):
            rows = slice(i * 7 // size[0], -(-(i + 1) * 7 // size[0]))
            columns = slice(j * 9 // size[1], -(-(j + 1) * 9 // size[1]))
            expected[:, :, i, j] = x[:, :, rows, columns].astype(float).mean((2, 3))
    node = Node("adaptive_avg_pool2d", ("x",), "y", {}, {"size": list(size)})
    same(run([node], {"x": x}), expected)


@pytest.mark.parametrize("axes", [[1], [2, 3], [1, 3], [1, 2, 3]])
@pytest.mark.parametrize("keep", [True, False])
def test_mean(axes: list[int], keep: bool) -> None:
    x = data(17, 3, 4, 5)
    found = run([Node("mean", ("x",), "y", {}, {"axes": axes, "keep": keep})], {"x": x})
    same(found, x.astype(float).mean(tuple(axes), keepdims=keep))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_softmax(axis: int) -> None:
    x = 20 * data(5, 3, 4, 5)
    e = np.exp(x.astype(float) - x.max(axis, keepdims=True))
    expected = e / e.sum(axis, keepdims=True)
    same(run([Node("softmax", ("x",), "y", {}, {"axis": axis})], {"x": x}), expected)
    found = run([Node("log_softmax", ("x",), "y", {}, {"axis": axis})], {"x": x})
    np.testing.assert_allclose(np.exp(found), expected, rtol=3e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(axes: int, affine: bool) -> None:
    x = data(4, 3, 6) + 10
    shape = x.shape[-axes:]
    arrays = {"g": data(*shape, seed=1), "b": data(*shape, seed=2)} if affine else {}
    roles = {"weight": "g", "bias": "b"} if affine else {}
    over = tuple(range(3 - axes, 3))
    y = x.astype(float) - x.astype(float).mean(over, keepdims=True)
    y /= np.sqrt((y**2).mean(over, keepdims=True) + 1e-5)
    expected = y * arrays["g"] + arrays["b"] if affine else y
    node = Node("layer_norm", ("x",), "y", roles, {"axes": axes, "eps": 1e-5})
    np.testing.assert_allclose(run([node], {"x": x}, arrays), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 3, 4)])
def test_batch_norm_alone(shape: tuple[int, ...]) -> None:
    x = data(5, *shape)
    arrays = {"m": data(6, seed=1), "v": data(6, seed=2) ** 2, "g": data(6, seed=3)}
    column = (6, *[1] * (len(shape) - 1))
    m, v, g = (arrays[name].astype(float).reshape(column) for name in "mvg")
    roles = {"mean": "m", "var": "v", "weight": "g"}
    found = run([Node("batch_norm", ("x",), "y", roles, {"eps": 1e-3})], {"x": x}, arrays)
    np.testing.assert_allclose(found, (x - m) / np.sqrt(v + 1e-3) * g, rtol=1e-5, atol=2e-5)


def test_moving_entries() -> None:
    x, y = data(18, 4, 5, 6), data(18, 2, 5, 6, seed=1)

    def one(op: str, **attributes: Any) -> Floats:
        found: Floats = run([Node(op, ("x",), "z", {}, attributes)], {"x": x})
        return found

    for shape in ((120,), (20, 6), (2, 2, 30), (2, 10, 3, 2), (6, 5, 4)):
        np.testing.assert_array_equal(one("reshape", shape=list(shape)), x.reshape(18, *shape))
    np.testing.assert_array_equal(one("permute", axes=[0, 3, 1, 2]), x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(one("slice", axis=3, start=1, stop=6, step=2), x[..., 1:6:2])
    np.testing.assert_array_equal(one("slice", axis=1, start=2, stop=4, step=1), x[:, 2:4])
    padded = one("pad", before=[1, 0, 2], after=[0, 3, 1], value=-1.5)
    expected = np.pad(x, ((0, 0), (1, 0), (0, 3), (2, 1)), constant_values=-1.5)
    np.testing.assert_array_equal(padded, expected)
    joined = run([Node("concat", ("x", "y", "x"), "z", {}, {"axis": 1})], {"x": x, "y": y})
    np.testing.assert_array_equal(joined, np.concatenate([x, y, x], 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 14), st.integers(1, 18))
def test_values_do_not_disturb_each_other(seed: int, length: int, batch: int) -> None:
    """Random graphs, in which buffers are used again and again, against NumPy."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, 3, 5, 4)).astype(np.float32)
    values: dict[str, Floats] = {"x": x.astype(float)}
    nodes: list[Node] = []
    arrays: dict[str, Floats] = {}
    for index in range(length):
        names, out = list(values), f"v{index}"
        a, b = (names[i] for i in rng.integers(max(0, len(names) - 4), len(names), 2))
        kind = rng.integers(4)
        if kind == 0:
            w = rng.standard_normal((3, 3, 3, 3)) * (rng.random((3, 3, 3, 3)) < 0.4) / 4
            arrays[out] = w.astype(np.float32)
            same_size: dict[str, Any] = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]}
            nodes.append(Node("conv2d", (a,), out, {"weight": out}, {**same_size, "groups": 1}))
            values[out] = oracle.conv2d(
                values[a], arrays[out].astype(float), np.zeros(3), **same_size, groups=1
            )
        elif kind == 1:
            nodes.append(Node("add", (a, b), out))
            values[out] = values[a] + values[b]
        elif kind == 2:
            nodes.append(Node("relu", (a,), out))
            values[out] = np.maximum(values[a], 0)
        else:
            nodes.append(Node("tanh", (a,), out))
            values[out] = np.tanh(values[a])
    found = run(nodes, {"x": x}, arrays)
    expected = values[nodes[-1].output]
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, np.abs(expected).max()))
