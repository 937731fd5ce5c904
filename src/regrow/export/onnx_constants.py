"""Constants that an ONNX graph spreads over a batch only to add them to something."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np


def fold_constants(ir: ModuleType, model: Any) -> int:
    """Let what was spread and added be added as it is; gives back how often.

    A number for each channel of an image becomes the bias of a depthwise convolution of one pixel
    and weight 1, which is the same sum to the bit: engines that keep images in blocks of channels
    stay in that layout for it, and take the activation behind it in, where a sum takes them out.

    Args:
        ir: the package onnx_ir.
        model: its model, changed in place. Nodes that nothing reads any more stay.
    """
    graph, done = model.graph, 0
    for node in list(graph):
        place = _spread(node)
        if place is None:
            continue
        spread, other = node.inputs[place], node.inputs[1 - place]
        source = spread.producer().inputs[0]
        value, rank = source.const_value.numpy(), len(other.shape)
        if value.ndim == rank - 1 and rank in (3, 4, 5) and value.size == len(value):
            weight = np.ones((len(value), *[1] * (rank - 1)), value.dtype)
            arrays = [("weight", weight), ("bias", value.reshape(-1))]
            inputs = [_stored(ir, graph, f"{source.name}.{done}.{n}", a) for n, a in arrays]
            made = ir.node("Conv", [other, *inputs], attributes={"group": len(value)})
        else:
            made = ir.node("Add", [other, source])
        out = made.outputs[0]
        out.name, out.type, out.shape = node.outputs[0].name, node.outputs[0].type, other.shape
        graph.insert_after(node, made)
        ir.convenience.replace_all_uses_with(node.outputs[0], out, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        done += 1
    return done


def _spread(node: Any) -> int | None:
    """Which operand of a sum is a stored array spread to the shape of the other."""
    if node.op_type != "Add" or node.domain:
        return None
    for place, each in enumerate(node.inputs):
        maker, other = each.producer(), node.inputs[1 - place]
        if maker is None or maker.op_type != "Expand" or maker.inputs[0].const_value is None:
            continue
        known = other.shape is not None and each.shape is not None
        if known and list(other.shape) == list(each.shape):
            return place
    return None


def _stored(ir: ModuleType, graph: Any, name: str, array: np.ndarray[Any, Any]) -> Any:
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value
