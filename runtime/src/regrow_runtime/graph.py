"""What a network computes, as plain data: nodes over named values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: one of the operations in docs/format-2.md.
        inputs: names of the values that it reads.
        output: the name of the value that it makes, unique in the graph.
        arrays: names of stored arrays by their role, such as "weight".
        attributes: plain JSON values.
        module: where in the user's model it was, for messages.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    arrays: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""


@dataclass(frozen=True)
class Graph:
    """A network: axis 0 of every value is the batch, of any size; all values are float32.

    Attributes:
        inputs: name, shape without the batch axis, and dtype of each.
        outputs: names of values.
        nodes: each after those whose values it reads.
    """

    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
