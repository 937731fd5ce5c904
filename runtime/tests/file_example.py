"""A small file with every kind of section, a graph and an alias."""

from __future__ import annotations

from typing import Any

import numpy as np

from regrow_runtime.file import Array, Contents
from regrow_runtime.graph import Graph, Node


def example() -> Contents:
    rng = np.random.default_rng(7)
    keep = rng.random((16, 6, 3, 3)) < 0.15
    weight = np.where(keep, rng.laplace(0, 0.1, keep.shape), 0).astype(np.float32)
    weight[0, 0, 0, 0], keep[0, 0, 0, 0] = 0.0, True  # a kept zero
    rows = rng.random((10, 64)) < 0.2
    small = np.where(rows, rng.integers(-127, 128, rows.shape), 0).astype(np.int8)
    norm = {
        role: Array(rng.normal(1, 0.1, 16).astype(np.float32), "float32")
        for role in ("weight", "bias", "running_mean", "running_var")
    }
    half = rng.normal(size=(12, 40)).astype(np.float16)
    special = np.array([np.nan, -0.0, np.inf, 1e-45, 0.0], np.float32)
    arrays = {
        "conv.weight": Array(weight, "float32", keep),
        "fc.weight": Array(small, "int8", rows, np.linspace(0.01, 0.02, 10, dtype=np.float32)),
        **{f"norm.{role}": array for role, array in norm.items()},
        "norm.steps": Array(np.array(3, np.int64), "int64", origin="int64"),
        "dense": Array(
            np.arange(-60, 60).astype(np.int8).reshape(8, 15),
            "int8",
            scales=np.full(8, 0.5, np.float32),
            origin="float16",
        ),
        "few": Array(
            np.arange(-70, 80).astype(np.int8).reshape(10, 15) // 20,
            "int8",
            levels=np.array([0.25, 0.5, 1, 2], np.float32),
        ),
        "half": Array(half, "float16"),
        "brain": Array(np.array([0x3F80, 0xFFC1], np.uint16), "bfloat16", origin="bfloat16"),
        "flags": Array(np.array([True, False, True]), "bool", origin="bool"),
        "special": Array(special, "float32"),
        "empty": Array(np.zeros((0, 3)), "float64", origin="float64"),
        "tied": Array(weight.copy(), "float32", keep.copy()),
    }
    nodes = (
        Node(
            "conv2d",
            ("x",),
            "a",
            {"weight": "conv.weight"},
            {"stride": [2, 2], "padding": [1, 1], "dilation": [1, 1], "groups": 1},
            "conv",
        ),
        Node(
            "batch_norm",
            ("a",),
            "b",
            {"mean": "norm.running_mean", "var": "norm.running_var", "weight": "norm.weight"},
            {"eps": 1e-5},
            "norm",
        ),
        Node("relu", ("b",), "c"),
        Node("reshape", ("c",), "d", {}, {"shape": [4, 64]}),
        Node("linear", ("d",), "e", {"weight": "fc.weight"}, {}, "fc"),
    )
    graph = Graph((("x", (6, 8, 8), "float32"),), ("e", "c"), nodes)
    return Contents(arrays, graph, {"näme": [1, 2.5, None, True, {"é": "x"}], "large": -(2**63)})


def snapshot(contents: Contents) -> dict[str, Any]:
    """Everything a file says, as comparable values; arrays as their bytes."""
    return {
        "arrays": {
            name: {
                "dtype": array.dtype,
                "origin": array.origin,
                "shape": array.values.shape,
                "values": array.values.tobytes(),
                "keep": None if array.keep is None else array.keep.tobytes(),
                "scales": None if array.scales is None else array.scales.tobytes(),
                "levels": None if array.levels is None else array.levels.tobytes(),
            }
            for name, array in contents.arrays.items()
        },
        "graph": contents.graph,
        "metadata": contents.metadata,
    }
