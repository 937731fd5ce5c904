"""Chains of steps over large values, computed in stripes, against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oracle
from regrow_runtime.graph import Node
from regrow_runtime.network import Network
from test_kernels import ISAS, close, network

Floats = np.ndarray[Any, Any]
CHANNELS = 12


def attributes(kernel: tuple[int, int], dilation: int = 1) -> dict[str, Any]:
    padding = [(k - 1) * dilation // 2 for k in kernel]
    return {"stride": [1, 1], "padding": padding, "dilation": [dilation] * 2, "groups": 1}


def turns(net: Network, batch: int) -> tuple[int, int]:
    """Of a batch's program, and its steps."""
    program = net._program(net._way(batch)[0])
    return program.turns, len(program.useful)


# Kernels, with a dilation, of convolutions that follow each other.
CHAIN = (((3, 3), 1), ((5, 1), 1), ((3, 3), 2), ((1, 3), 1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("batch", "height", "width"),
    [
        (16, 53, 46),
        (16, 48, 64),
        (16, 200, 12),
        (16, 700, 5),
        (16, 900, 3),
        (8, 97, 61),
        (1, 301, 203),
    ],
)
def test_a_chain(isa: str, batch: int, height: int, width: int) -> None:
    """Convolutions of several kernels, a sum with the chain's input, and a maximum of 2 x 2."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, CHANNELS, height, width)).astype(np.float32)
    arrays: dict[str, Floats] = {}
    nodes: list[Node] = []
    value, expected = "x", x.astype(float)
    for i, (kernel, dilation) in enumerate(CHAIN):
        weight = rng.standard_normal((CHANNELS, CHANNELS, *kernel)).astype(np.float32)
        weight *= 0.3 * (rng.random(weight.shape) < 0.15)
        arrays[f"w{i}"], a = weight, attributes(kernel, dilation)
        nodes.append(Node("conv2d", (value,), f"c{i}", {"weight": f"w{i}"}, a))
        expected = oracle.conv2d(expected, weight.astype(float), np.zeros(CHANNELS), **a)
        value = f"c{i}"
        if i == 1:
            nodes.append(Node("add", (value, "x"), "sum"))
            expected, value = expected + x, "sum"
        nodes.append(Node("relu", (value,), f"r{i}"))
        expected, value = np.maximum(expected, 0), f"r{i}"
    pool = {
        "kernel": [2, 2],
        "stride": [2, 2],
        "padding": [0, 0],
        "dilation": [1, 1],
        "ceil": False,
    }
    nodes.append(Node("max_pool2d", (value,), "p", {}, pool))
    even = expected[:, :, : height // 2 * 2, : width // 2 * 2]
    expected = even.reshape(batch, CHANNELS, height // 2, 2, width // 2, 2).max((3, 5))
    net = network(nodes, arrays, x.shape[1:], isa)
    taken, steps = turns(net, batch)
    assert steps == len(CHAIN) + 1
    assert taken > steps
    found = net(x)
    close(found, expected, 100 * CHANNELS)
    np.testing.assert_array_equal(net(x), found)
    other = network(nodes, arrays, x.shape[1:], isa, threads=2)
    close(other(x), expected, 100 * CHANNELS)


def test_values_that_are_small_are_passed_on_as_a_whole() -> None:
    weight = np.ones((CHANNELS, CHANNELS, 3, 3), np.float32)
    weight[:, 1:] = 0
    a = attributes((3, 3))
    nodes = [
        Node("conv2d", ("x",), "y", {"weight": "w"}, a),
        Node("conv2d", ("y",), "z", {"weight": "w"}, a),
    ]
    net = network(nodes, {"w": weight}, (CHANNELS, 8, 8))
    assert turns(net, 16) == (2, 2)


@pytest.mark.parametrize(
    ("op", "seen"),
    [
        ({"op": "slice", "axis": 2, "start": 21, "stop": 97, "step": 1}, lambda y: y[:, :, 21:]),
        ({"op": "slice", "axis": 2, "start": 0, "stop": 97, "step": 3}, lambda y: y[:, :, ::3]),
        ({"op": "permute", "axes": [0, 2, 1, 3]}, lambda y: y.transpose(0, 2, 1, 3)),
    ],
)
def test_rows_of_a_part_are_not_those_of_the_whole(
    op: dict[str, Any], seen: Callable[[Floats], Floats]
) -> None:
    """A maximum over a slice, or over another order of axes, waits for all that it reads."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    weight *= rng.random(weight.shape) < 0.15
    x = rng.standard_normal((16, CHANNELS, 97, 42)).astype(np.float32)
    a = attributes((3, 3))
    pool = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1]}
    given = {key: value for key, value in op.items() if key != "op"}
    nodes = [
        Node("conv2d", ("x",), "y", {"weight": "w"}, a),
        Node(op["op"], ("y",), "s", {}, given),
        Node("max_pool2d", ("s",), "p", {}, {**pool, "ceil": False}),
    ]
    part = seen(oracle.conv2d(x.astype(float), weight.astype(float), np.zeros(CHANNELS), **a))
    batch, channels, height, width = part.shape
    even = part[:, :, : height // 2 * 2, : width // 2 * 2]
    expected = even.reshape(batch, channels, height // 2, 2, width // 2, 2).max((3, 5))
    net = network(nodes, {"w": weight}, x.shape[1:])
    close(net(x), expected, 9 * CHANNELS)
