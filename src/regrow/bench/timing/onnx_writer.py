"""The growing list of nodes and constants of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from regrow.bench.timing.source import Source

if TYPE_CHECKING:
    from regrow_runtime.graph import Node


@dataclass
class Writer:
    """The nodes and constants written so far."""

    source: Source
    onnx: Any
    nodes: list[Any] = field(default_factory=list)
    initializers: dict[str, Any] = field(default_factory=dict)
    _names: int = 0

    def emit(
        self, op: str, inputs: Sequence[str], output: str | None = None, **attributes: Any
    ) -> str:
        """Add an ONNX node; gives the name of its output, a fresh one unless one is asked for."""
        output = output or self._fresh()
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A constant of its own."""
        return self._store(self._fresh(), np.asarray(values, dtype))

    def array(self, name: str, shape: Sequence[int] | None = None) -> str:
        """A stored array, once however often it is used; with a shape: seen in that."""
        values = self.source.arrays[name]
        key = f"array:{name}" if shape is None else f"array:{name}:{list(shape)}"
        if key not in self.initializers:
            self._store(key, values if shape is None else values.reshape(shape))
        return key

    def shape(self, node: Node) -> tuple[int, ...]:
        """Of a node's first input, without the batch axis."""
        return self.source.shapes[node.inputs[0]]

    def described(self, name: str, shape: Sequence[int]) -> Any:
        proto = self.onnx.TensorProto.FLOAT
        return self.onnx.helper.make_tensor_value_info(name, proto, ["batch", *shape])

    def _store(self, name: str, values: Any) -> str:
        self.initializers[name] = self.onnx.numpy_helper.from_array(
            np.ascontiguousarray(values).reshape(np.shape(values)), name
        )
        return name

    def _fresh(self) -> str:
        self._names += 1
        return f"onnx:{self._names}"
