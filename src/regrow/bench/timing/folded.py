"""A packed network whose batch norms PyTorch has folded into the layers before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from regrow.bench.timing.source import Floats, Source

if TYPE_CHECKING:
    from regrow_runtime.graph import Graph, Node


def folded(source: Source) -> Source:
    """The same network; a norm that alone reads a layer's output is part of that layer."""
    arrays = dict(source.arrays)
    reads = _reads(source.graph)
    placed: dict[str, int] = {}
    nodes: list[Node] = []
    for node in source.graph.nodes:
        before = placed.get(node.inputs[0])
        if node.op == "batch_norm" and before is not None and reads[node.inputs[0]] == 1:
            layer = nodes[before]
            if layer.op == "conv2d" or (
                layer.op == "linear" and len(source.shapes[layer.output]) == 1
            ):
                fused = _fused(layer, node, arrays)
                names = {role: f"{role}:{node.output}" for role in fused}
                arrays |= {names[role]: array for role, array in fused.items()}
                nodes[before] = replace(layer, output=node.output, arrays=names)
                placed[node.output] = before
                continue
        placed[node.output] = len(nodes)
        nodes.append(node)
    return Source(replace(source.graph, nodes=tuple(nodes)), arrays, source.shapes)


def _reads(graph: Graph) -> dict[str, int]:
    """How many nodes read each value."""
    reads: dict[str, int] = dict.fromkeys(graph.outputs, 2)  # as good as another reader
    for node in graph.nodes:
        for name in node.inputs:
            reads[name] = reads.get(name, 0) + 1
    return reads


def _fused(layer: Node, norm: Node, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """Weight and bias of the layer with the norm in it."""
    own, theirs = (
        # Copies: what a file gives may be read-only.
        {role: torch.from_numpy(np.array(arrays[name], np.float32)) for role, name in each.items()}
        for each in (layer.arrays, norm.arrays)
    )
    fuse: Any = fuse_conv_bn_weights if layer.op == "conv2d" else fuse_linear_bn_weights
    ones = torch.ones_like(theirs["mean"])
    weight, bias = fuse(
        own["weight"],
        own.get("bias"),
        theirs["mean"],
        theirs["var"],
        norm.attributes["eps"],
        theirs.get("weight", ones),
        theirs.get("bias", torch.zeros_like(ones)),
    )
    return {"weight": weight.detach().numpy(), "bias": bias.detach().numpy()}
