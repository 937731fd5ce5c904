"""Batch norms taken into the scales of int8 weights, where they cost nothing to store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np


def fold_norms(
    native: ModuleType, arrays: Mapping[str, Any], graph: Any
) -> tuple[dict[str, Any], Any]:
    """Arrays and graph without the batch norms that follow a convolution of int8 weights.

    A weight's whole numbers stay as they are: its scales are multiplied by the norm's, gamma /
    sqrt(var + eps), and the rest becomes a bias. A norm stays where its convolution's output, its
    weights or its bias are read elsewhere too.

    Args:
        native: the runtime.
        arrays: `regrow_runtime.file.Array` by name.
        graph: `regrow_runtime.graph.Graph`.
    """
    kept, nodes = dict(arrays), list(graph.nodes)
    readers = Counter([name for node in nodes for name in node.inputs] + list(graph.outputs))
    users = Counter(name for node in nodes for name in node.arrays.values())
    ties = Counter(id(array) for array in arrays.values())
    makers = {node.output: index for index, node in enumerate(nodes)}
    for index, norm in enumerate(nodes):
        if norm.op != "batch_norm" or norm.inputs[0] not in makers:
            continue
        place = makers[norm.inputs[0]]
        conv = nodes[place]
        if conv.op != "conv2d" or readers[conv.output] > 1:
            continue
        weight = kept[conv.arrays["weight"]]
        bias_name = conv.arrays.get("bias", norm.arrays.get("bias", norm.arrays["mean"]))
        tied = ties[id(weight)] > 1 or users[conv.arrays["weight"]] > 1 or users[bias_name] > 1
        if weight.scales is None or tied:
            continue
        floats = {name: kept[name].floats() for name in norm.arrays.values()}
        scale, shift = native.fold.scale_and_shift(norm, floats)
        if "bias" in conv.arrays:
            shift = shift + scale * kept[bias_name].floats()
        scales = (weight.scales * scale).astype(np.float32)
        bias = shift.astype(np.float32)
        if not (np.isfinite(scales).all() and np.isfinite(bias).all()):
            continue
        for name in norm.arrays.values():
            users[name] -= 1
            if not users[name]:
                del kept[name]
        kept[conv.arrays["weight"]] = replace(weight, scales=scales)
        kept[bias_name] = native.file.Array(bias, "float32", None, None, "float32")
        users[bias_name] = 1
        if not users[norm.arrays["var"]]:
            kept.pop(norm.arrays["var"].rpartition("running_var")[0] + "num_batches_tracked", None)
        roles = {**conv.arrays, "bias": bias_name}
        nodes[place], nodes[index] = replace(conv, arrays=roles, output=norm.output), None
        makers[norm.output] = place
    return kept, replace(graph, nodes=tuple(node for node in nodes if node is not None))
