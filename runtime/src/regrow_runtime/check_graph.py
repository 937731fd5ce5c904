"""Whether a graph can run: known operations, arrays and attributes that fit, every shape.

A graph comes from a file that anybody may have written. What passes here can be computed in its
order, and no value of it has more than `ELEMENTS_LIMIT` elements a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from regrow_runtime.arrays import FLOATS, Array, need
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.graph import Graph, Node
from regrow_runtime.operations import OPERATIONS, WHOLES, bounded


def check_graph(
    graph: Graph, arrays: Mapping[str, tuple[tuple[int, ...], str]]
) -> dict[str, tuple[int, ...]]:
    """The shape, without the batch axis, of every value of the graph by name.

    Args:
        graph: of any origin.
        arrays: shape and dtype of the stored arrays by name.

    Raises:
        RuntimeFileError: the graph cannot run; the message names the node and the reason.
    """
    values: dict[str, tuple[int, ...]] = {}
    need(len(graph.inputs) > 0, "the graph has no input")
    for name, shape, dtype in graph.inputs:
        need(_is_name(name) and name not in values, f"the graph's input {name!r} is no new name")
        where = f"the graph's input {name!r}"
        need(dtype == "float32", f"{where} is {dtype!r}, not float32")
        need(WHOLES.fits(shape), f"{where} has a shape with a bad extent")
        with _at(where):
            values[name] = bounded(tuple(shape))
    for index, node in enumerate(graph.nodes):
        with _at(f"node {index}"):
            need(type(node.op) is str and node.op in OPERATIONS, f"unknown operation {node.op!r}")
            need(type(node.module) is str, "its module is not a string")
        with _at(f"node {index} ({node.op} of {node.module!r})"):
            need(_is_name(node.output), f"its output {node.output!r} is no name")
            need(node.output not in values, f"there is a value {node.output!r} before it")
            for name in node.inputs:
                known = type(name) is str and name in values
                need(known, f"no input and no node before it gives {name!r}")
            values[node.output] = _apply(node, [values[name] for name in node.inputs], arrays)
    need(len(graph.outputs) > 0, "the graph has no output")
    for name in graph.outputs:
        need(type(name) is str and name in values, f"no node gives the graph's output {name!r}")
    return values


def shapes_of(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """As `check_graph`, with the arrays themselves."""
    return check_graph(
        graph, {name: (array.values.shape, array.dtype) for name, array in arrays.items()}
    )


def _apply(
    node: Node,
    inputs: list[tuple[int, ...]],
    arrays: Mapping[str, tuple[tuple[int, ...], str]],
) -> tuple[int, ...]:
    operation = OPERATIONS[node.op]
    counted = len(inputs) == operation.inputs if operation.inputs else len(inputs) > 0
    need(counted, f"it has {len(inputs)} inputs")
    roles = set(node.arrays)
    fits = set(operation.required) <= roles <= {*operation.required, *operation.optional}
    need(fits, f"its arrays are {sorted(map(str, roles))}")
    shapes = {}
    for role, name in node.arrays.items():
        need(type(name) is str and name in arrays, f"its {role} {name!r} is not stored")
        shapes[role], dtype = arrays[name]
        need(dtype in FLOATS or dtype == "int8", f"its {role} {name!r} is {dtype}")
    fits = set(node.attributes) == set(operation.attributes)
    need(fits, f"its attributes are {sorted(map(str, node.attributes))}")
    for key, kind in operation.attributes.items():
        need(kind.fits(node.attributes[key]), f"its {key} is not {kind.words}")
    return bounded(operation.shape(inputs, shapes, node.attributes))


def _is_name(value: Any) -> bool:
    return type(value) is str and value != ""


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except RuntimeFileError as fault:
        raise RuntimeFileError(f"{where}: {fault}") from None
