"""Convolutions and linear layers on every instruction set against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import oracle
from regrow_runtime.file import Array, Contents
from regrow_runtime.graph import Graph, Node
from regrow_runtime.network import Network, instruction_sets

ISAS = instruction_sets()


def network(
    nodes: list[Node],
    arrays: dict[str, np.ndarray],
    shape: tuple[int, ...],
    isa: str = ISAS[0],
    threads: int = 1,
    outputs: tuple[str, ...] = (),
) -> Network:
    graph = Graph((("x", shape, "float32"),), outputs or (nodes[-1].output,), tuple(nodes))
    stored = {name: Array(array.astype(np.float32), "float32") for name, array in arrays.items()}
    return Network(Contents(stored, graph, {}), threads=threads, isa=isa)


def close(found: np.ndarray, expected: np.ndarray, terms: int) -> None:
    """Sums of so many products of numbers about 1 lie within rounding of float64's."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=3e-6 * np.sqrt(terms) + 1e-6, rtol=1e-5)


@st.composite
def convolutions(draw: st.DrawFn) -> dict:
    pairs = st.tuples
    kernel = draw(pairs(st.integers(1, 7), st.integers(1, 7)))
    stride = draw(pairs(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(pairs(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(pairs(st.integers(0, 4), st.integers(0, 4)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(1, r - 2 * p) for r, p in zip(reach, padding, strict=True)]
    size = tuple(draw(st.integers(low, low + 18)) for low in least)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    return {
        "shape": (groups * draw(st.integers(1, 5)), *size),
        "outputs": groups * draw(st.integers(1, 9)),
        "groups": groups,
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "density": draw(st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0])),
        "batch": draw(st.integers(1, 19)),
        "threads": draw(st.integers(1, 3)),
        "isa": draw(st.sampled_from(ISAS)),
        "seed": draw(st.integers(0, 2**16)),
    }


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_convolution(case: dict) -> None:
    rng = np.random.default_rng(case["seed"])
    channels = case["shape"][0]
    weight = rng.standard_normal((case["outputs"], channels // case["groups"], *case["kernel"]))
    weight *= rng.random(weight.shape) < case["density"]
    weight[rng.random(len(weight)) < 0.2] = 0  # channels that nothing is left of
    bias = rng.standard_normal(len(weight))
    x = rng.standard_normal((case["batch"], *case["shape"])).astype(np.float32)
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    attributes = {name: list(case[name]) for name in ("stride", "padding", "dilation")}
    node = Node(
        "conv2d",
        ("x",),
        "y",
        {"weight": "w", "bias": "b"},
        {**attributes, "groups": case["groups"]},
    )
    net = network([node], {"w": weight, "b": bias}, case["shape"], case["isa"], case["threads"])
    expected = oracle.conv2d(
        x.astype(float), weight.astype(float), bias.astype(float), **attributes,
        groups=case["groups"],
    )  # fmt: skip
    found = net(x)
    close(found, expected, weight[0].size)
    # Whatever was computed before, and in whatever company, an image has one result.
    np.testing.assert_array_equal(net(x), found)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("size", "stride"),
    # Sixteen neighbours of an output read one row of the input, two or more, or too far apart.
    [
        ((32, 32), (2, 2)),
        ((16, 16), (2, 2)),
        ((8, 8), (2, 2)),
        ((9, 70), (1, 3)),
        ((17, 33), (3, 1)),
    ],
)
def test_strides(size: tuple[int, int], stride: tuple[int, int], isa: str) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((20, 6, 3, 3)) * (rng.random((20, 6, 3, 3)) < 0.5)
    x = rng.standard_normal((1, 6, *size)).astype(np.float32)
    attributes = {"stride": list(stride), "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    node = Node("conv2d", ("x",), "y", {"weight": "w", "bias": "b"}, attributes)
    arrays = {"w": weight.astype(np.float32), "b": np.zeros(20, np.float32)}
    expected = oracle.conv2d(x.astype(float), weight, np.zeros(20), **attributes)
    close(network([node], arrays, (6, *size), isa, 1)(x), expected, weight[0].size)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (2, 3), (1, 5), (2, 4), (4, 4), (8, 8)])
def test_images_of_few_pixels(size: tuple[int, int], isa: str) -> None:
    """Parts of a register are computed there; the convolution behind reads zeros around them, and
    an odd output, or a block of outputs, comes in whole registers among the others."""
    rng = np.random.default_rng(2)
    attributes = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    arrays, nodes, last = {}, [], "x"
    for i, (outputs, channels) in enumerate([(101, 24), (67, 101), (8, 67)]):
        weight = rng.standard_normal((outputs, channels, 3, 3)) * 0.3
        weight *= rng.random(weight.shape) < 0.2
        weight[:4] = rng.standard_normal(weight[:4].shape) * 0.3
        arrays |= {f"w{i}": weight.astype(np.float32)}
        arrays |= {f"b{i}": rng.standard_normal(outputs).astype(np.float32)}
        names = {"weight": f"w{i}", "bias": f"b{i}"}
        nodes.append(Node("conv2d", (last,), last := f"y{i}", names, attributes))
    for batch in (1, 2, 3, 4, 8):
        x = rng.standard_normal((batch, 24, *size)).astype(np.float32)
        expected = x.astype(float)
        for i in range(3):
            weight, bias = (arrays[f"{kind}{i}"].astype(float) for kind in "wb")
            expected = oracle.conv2d(expected, weight, bias, **attributes)
        close(network(nodes, arrays, (24, *size), isa)(x), expected, 10 * weight[0].size)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 40),
    st.integers(8, 40),
    st.tuples(st.integers(4, 40), st.integers(4, 70))
    | st.integers(2, 4).map(lambda side: (side, side)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)) | st.just((1, 1)),
    st.sampled_from([0.4, 0.7, 1.0]),
    st.integers(2, 35),
    st.integers(1, 5),
    st.sampled_from(ISAS),
    st.integers(0, 2**16),
)
def test_nearly_dense_convolution(
    channels: int,
    outputs: int,
    size: tuple[int, int],
    padding: tuple[int, int],
    density: float,
    batch: int,
    threads: int,
    isa: str,
    seed: int,
) -> None:
    """By minimal filtering, or outputs side by side in a few pixels; clamped, and with an input
    added where it fits."""
    assume(all(pixels + 2 * beside >= 3 for pixels, beside in zip(size, padding, strict=True)))
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((outputs, channels, 3, 3)).astype(np.float32)
    weight *= rng.random(weight.shape) < density
    bias = rng.standard_normal(outputs).astype(np.float32)
    x = rng.standard_normal((batch, channels, *size)).astype(np.float32)
    same = {"stride": [1, 1], "padding": list(padding), "dilation": [1, 1]}
    nodes = [Node("conv2d", ("x",), "a", {"weight": "w", "bias": "b"}, {**same, "groups": 1})]
    expected = oracle.conv2d(
        x.astype(float), weight.astype(float), bias.astype(float), **same, groups=1
    )
    if expected.shape == x.shape:
        nodes.append(Node("add", ("a", "x"), "s"))
        expected = expected + x
    nodes.append(Node("relu", (nodes[-1].output,), "y"))
    net = network(nodes, {"w": weight, "b": bias}, (channels, *size), isa, threads)
    found = net(x)
    close(found, np.maximum(expected, 0), 9 * weight[0].size)
    np.testing.assert_array_equal(net(x), found)
    close(net(x[-1:]), found[-1:], 9 * weight[0].size)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 40),
    st.lists(st.integers(1, 5), max_size=2),
    st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.integers(1, 20),
    st.sampled_from(ISAS),
    st.integers(0, 2**16),
)
def test_linear(
    inputs: int, outputs: int, more: list[int], density: float, batch: int, isa: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
    weight *= rng.random(weight.shape) < density
    bias = rng.standard_normal(outputs).astype(np.float32)
    x = rng.standard_normal((batch, *more, inputs)).astype(np.float32)
    node = Node("linear", ("x",), "y", {"weight": "w", "bias": "b"})
    net = network([node], {"w": weight, "b": bias}, (*more, inputs), isa, 2)
    close(net(x), x.astype(float) @ weight.astype(float).T + bias, inputs)


@pytest.mark.parametrize("isa", ISAS)
def test_norm_sum_and_clamp_go_into_the_convolution(isa: str) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((6, 6, 3, 3)) * (rng.random((6, 6, 3, 3)) < 0.2),
        "mean": rng.standard_normal(6),
        "var": rng.random(6) + 0.5,
        "gamma": rng.standard_normal(6),
        "beta": rng.standard_normal(6),
    }
    same = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    nodes = [
        Node("conv2d", ("x",), "a", {"weight": "w"}, same),
        Node(
            "batch_norm",
            ("a",),
            "b",
            {"mean": "mean", "var": "var", "weight": "gamma", "bias": "beta"},
            {"eps": 1e-5},
        ),
        Node("add", ("b", "x"), "c"),
        Node("relu6", ("c",), "d"),
    ]
    net = network(nodes, arrays, (6, 9, 7), isa)
    assert len(net.profile(1, 1)) == 1  # a single step
    (odd,) = net.profile(3, 1)  # as four images
    assert odd["multiply_adds"] == 4 * net.profile(1, 1)[0]["multiply_adds"]
    assert 0 < odd["peak_share"] < 1.5
    x = 3 * rng.standard_normal((4, 6, 9, 7)).astype(np.float32)
    a = oracle.conv2d(
        x.astype(float), arrays["w"].astype(np.float32).astype(float), np.zeros(6), (1, 1), (1, 1),
        (1, 1), 1,
    )  # fmt: skip
    b = (a - arrays["mean"][:, None, None]) / np.sqrt(arrays["var"] + 1e-5)[:, None, None]
    b = b * arrays["gamma"][:, None, None] + arrays["beta"][:, None, None]
    close(net(x), np.clip(b + x, 0, 6), 54)


def test_what_is_not_finite_stays_where_it_is() -> None:
    weight = np.zeros((1, 1, 3, 3))
    weight[0, 0, 1, 1] = 1
    attributes = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    node = Node("conv2d", ("x",), "y", {"weight": "w"}, attributes)
    net = network([node, Node("relu", ("y",), "z")], {"w": weight}, (1, 5, 6))
    x = np.ones((3, 1, 5, 6), np.float32)
    x[1, 0, 2, 5], x[1, 0, 4, 0] = np.nan, np.inf
    np.testing.assert_array_equal(net(x), x)
    ones = np.ones_like(x)
    np.testing.assert_array_equal(net(ones), ones)


@pytest.mark.parametrize(("channels", "outputs", "size"), [(17, 33, 12), (128, 130, 4)])
def test_however_a_batch_is_divided(channels: int, outputs: int, size: int) -> None:
    """Few weights and many, batches with and without a rest: each image has its result, and the
    same bits at every call, whatever the others hold."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((outputs, channels, 3, 3)).astype(np.float32)
    weight *= rng.random(weight.shape) < (0.3 if channels < 100 else 0.95)
    attributes = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]}
    node = Node("conv2d", ("x",), "y", {"weight": "w"}, {**attributes, "groups": 1})
    x = rng.standard_normal((70, channels, size, size)).astype(np.float32)
    expected = oracle.conv2d(
        x.astype(float), weight.astype(float), np.zeros(outputs), **attributes, groups=1
    )
    for threads in (1, 2, 5):
        net = network([node], {"w": weight}, x.shape[1:], threads=threads)
        for batch in (1, 2, 7, 16, 33, 64, 70):
            found = net(x[:batch])
            close(found, expected[:batch], 9 * weight[0].size)
            np.testing.assert_array_equal(net(x[:batch]), found)
            others = rng.standard_normal(x[:batch].shape).astype(np.float32)
            others[batch // 2] = x[batch // 2]
            np.testing.assert_array_equal(net(others)[batch // 2], found[batch // 2])


def test_parts_of_values() -> None:
    """Slices of slices, read by every kind of operation, and returned."""
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((2, 2, 3, 3)).astype(np.float32)
    pads = {"before": [1, 0, 2], "after": [0, 3, 0], "value": 1.5}
    attributes = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]}
    nodes = [
        Node("slice", ("x",), "a", {}, {"axis": 2, "start": 1, "stop": 8, "step": 2}),
        Node("slice", ("a",), "b", {}, {"axis": 1, "start": 1, "stop": 3, "step": 1}),
        Node("relu", ("x",), "after"),  # may not take the buffer that b lies in
        Node("pad", ("b",), "c", {}, pads),
        Node("conv2d", ("b",), "d", {"weight": "w"}, {**attributes, "groups": 1}),
        Node("add", ("b", "d"), "e"),
        Node("flatten", ("b",), "f", {}, {"shape": [48]}),
    ]
    x = rng.standard_normal((3, 4, 8, 6)).astype(np.float32)
    outputs = ("b", "c", "e", "f", "after")
    net = network(nodes, {"w": weight}, x.shape[1:], outputs=outputs)
    b = x[:, 1:3, 1:8:2]
    padded = np.pad(b, ((0, 0), (1, 0), (0, 3), (2, 0)), constant_values=1.5)
    convolved = oracle.conv2d(
        b.astype(float), weight.astype(float), np.zeros(2), **attributes, groups=1
    )
    expected = [b, padded, b + convolved, b.reshape(3, -1), np.maximum(x, 0)]
    for found, wanted in zip(net(x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
