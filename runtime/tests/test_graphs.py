"""Graphs as a whole: names, values and their shapes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from regrow_runtime.check_graph import check_graph, shapes_of
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import Array
from regrow_runtime.graph import Graph, Node

X = (("x", (2, 3), "float32"),)
RELU = Node("relu", ("x",), "y")


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (Graph((), ("x",), ()), "no input"),
        (Graph(X, (), ()), "no output"),
        (Graph((*X, *X), ("x",), ()), "'x' is no new name"),
        (Graph((("", (2,), "float32"),), ("",), ()), "'' is no new name"),
        (Graph((([], (2,), "float32"),), ("x",), ()), "is no new name"),  # type: ignore[arg-type]
        (Graph((("x", (2,), "int64"),), ("x",), ()), "'int64', not float32"),
        (Graph((("x", (0,), "float32"),), ("x",), ()), "no elements"),
        (Graph((("x", (-1,), "float32"),), ("x",), ()), "bad extent"),
        (Graph((("x", (True,), "float32"),), ("x",), ()), "bad extent"),
        (Graph((("x", 3, "float32"),), ("x",), ()), "bad extent"),  # type: ignore[arg-type]
        (Graph((("x", (2**14,) * 2 + (2,), "float32"),), ("x",), ()), "input 'x': .* too large"),
        (Graph((("x", (1,) * 9, "float32"),), ("x",), ()), "more than 8 axes"),
        (Graph(X, ("y",), ()), "no node gives the graph's output 'y'"),
        (Graph(X, ([],), ()), "no node gives"),  # type: ignore[arg-type]
        (Graph(X, ("y",), (replace(RELU, op="exec"),)), "node 0: unknown operation 'exec'"),
        (Graph(X, ("y",), (replace(RELU, op=[]),)), "unknown operation"),  # type: ignore[arg-type]
        (Graph(X, ("y",), (replace(RELU, module=3),)), "not a string"),  # type: ignore[arg-type]
        (Graph(X, ("y",), (replace(RELU, output=""),)), "'' is no name"),
        (Graph(X, ("y",), (replace(RELU, output={}),)), "is no name"),  # type: ignore[arg-type]
        (Graph(X, ("y",), (replace(RELU, output="x"),)), "there is a value 'x' before it"),
        (Graph(X, ("y",), (RELU, RELU)), "node 1 .*there is a value 'y' before it"),
        (Graph(X, ("y",), (replace(RELU, inputs=("y",)),)), "no node before it gives 'y'"),
        (Graph(X, ("y",), (replace(RELU, inputs=([],)),)), "no node before it"),  # type: ignore[arg-type]
        (
            Graph(X, ("y",), (Node("relu", ("z",), "y"), Node("relu", ("y",), "z"))),
            "node 0 .*no node before it gives 'z'",
        ),
        (Graph(X, ("y",), (Node("add_array", ("x",), "y", {"weight": "b"}),)), "'b' is not stored"),
        (Graph(X, ("y",), (Node("add_array", ("x",), "y", {"weight": 1}),)), "1 is not stored"),  # type: ignore[dict-item]
        (Graph(X, ("y",), (Node("add_array", ("x",), "y", {"weight": "i"}),)), "'i' is int64"),
    ],
    ids=itertools.count(),
)
def test_graphs_that_cannot_run(graph: Graph, reason: str) -> None:
    with pytest.raises(RuntimeFileError, match=reason):
        check_graph(graph, {"i": ((3,), "int64")})


def test_all_values_of_a_graph_get_a_shape() -> None:
    weight = np.zeros((5, 3), np.int8)
    arrays = {"w": Array(weight, "int8", scales=np.ones(5, np.float32))}
    nodes = (Node("linear", ("x",), "a", {"weight": "w"}), Node("relu", ("a",), "b"))
    expected = {"x": (2, 3), "a": (2, 5), "b": (2, 5)}
    assert shapes_of(Graph(X, ("b", "x"), nodes), arrays) == expected


def test_a_long_graph_is_checked_fast() -> None:
    nodes = [Node("relu", ("x",), "v0")]
    nodes += [Node("add", (f"v{i}", f"v{i}"), f"v{i + 1}") for i in range(20_000)]
    assert len(check_graph(Graph(X, ("v20000",), tuple(nodes)), {})) == 20_002
