"""From the graph in a file to what is executed: norms folded in, sums and clamps fused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regrow_runtime.graph import Graph, Node

Floats = npt.NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

_CLAMPS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


@dataclass(frozen=True, eq=False)
class Weighted:
    """A convolution, or a linear layer as one of 1 x 1, with all that follows it in one pass.

    Attributes:
        weight: float32 (outputs, inputs / groups, kernel rows, kernel columns).
        bias: float32 (outputs,).
        input, output: values.
        residual: a value of the output's shape that is added, or None.
        low, high: between these the sum is clamped.
        module: where in the user's model it was.
        linear: whether the input's last axis holds the channels.
    """

    weight: Floats
    bias: Floats
    input: str
    output: str
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    residual: str | None = None
    low: float = -math.inf
    high: float = math.inf
    module: str = ""
    linear: bool = False


Step = Weighted | Node


def fold(graph: Graph, arrays: Mapping[str, Floats], shapes: Shapes) -> list[Step]:
    """The steps that compute a graph's outputs.

    A batch norm goes into the convolution or linear layer before it, if nothing else reads what
    lies between; then follow the addition of an equally large value and a clamp.

    Args:
        graph: checked.
        arrays: float32, by the names that nodes use.
        shapes: of all values, without the batch.
    """
    readers = _readers(graph)
    absorbed: set[int] = set()
    placed: dict[int, Step] = {}
    for index, node in enumerate(graph.nodes):
        if node.op not in ("conv2d", "linear"):
            continue
        step, last = _weighted(node, arrays), index
        follower = _only(readers, step.output)
        if follower is not None and graph.nodes[follower].op == "batch_norm":
            norm = graph.nodes[follower]
            if not step.linear or len(shapes[step.output]) == 1:
                step, last = _normed(step, norm, arrays), follower
                absorbed.add(follower)
        follower = _only(readers, step.output)
        if follower is not None and _adds(graph.nodes[follower], shapes) and not step.linear:
            other = next(
                (name for name in graph.nodes[follower].inputs if name != step.output), None
            )
            # The other side is ready wherever the sum stands; a sum has room for one layer.
            if other is not None and follower not in absorbed:
                output = graph.nodes[follower].output
                step, last = replace(step, residual=other, output=output), follower
                absorbed.add(follower)
        follower = _only(readers, step.output)
        if follower is not None and (clamp := _clamp(graph.nodes[follower])):
            output = graph.nodes[follower].output
            step, last = replace(step, low=clamp[0], high=clamp[1], output=output), follower
            absorbed.add(follower)
        absorbed.add(index)
        placed[last] = step
    steps: list[Step] = []
    for index, node in enumerate(graph.nodes):
        if index in placed:
            steps.append(placed[index])
        elif index not in absorbed:
            steps.append(_alone(node, arrays, shapes))
    return steps


def _readers(graph: Graph) -> dict[str, list[int]]:
    """Positions of the nodes that read each value; -1 stands for the caller."""
    found: dict[str, list[int]] = {name: [-1] for name in graph.outputs}
    for index, node in enumerate(graph.nodes):
        for name in node.inputs:
            found.setdefault(name, []).append(index)
    return found


def _only(readers: Mapping[str, list[int]], name: str) -> int | None:
    """The one node that reads a value, and reads it once; None if there are others."""
    reading = readers.get(name, [])
    return reading[0] if len(reading) == 1 and reading[0] >= 0 else None


def _weighted(node: Node, arrays: Mapping[str, Floats]) -> Weighted:
    weight = arrays[node.arrays["weight"]]
    bias = (
        arrays[node.arrays["bias"]] if "bias" in node.arrays else np.zeros(len(weight), np.float32)
    )
    if node.op == "linear":
        weight = weight[:, :, None, None]
        return Weighted(weight, bias, node.inputs[0], node.output, module=node.module, linear=True)
    a = node.attributes
    return Weighted(
        weight,
        bias,
        node.inputs[0],
        node.output,
        groups=a["groups"],
        stride=tuple(a["stride"]),
        padding=tuple(a["padding"]),
        dilation=tuple(a["dilation"]),
        module=node.module,
    )


def scale_and_shift(norm: Node, arrays: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """What a batch norm multiplies channels by and adds to them, in float64 until the end."""
    mean, var = (arrays[norm.arrays[role]].astype(np.float64) for role in ("mean", "var"))
    with np.errstate(all="ignore"):  # A variance of nothing gives what PyTorch gives.
        scale = 1 / np.sqrt(var + norm.attributes["eps"])
    if "weight" in norm.arrays:
        scale = scale * arrays[norm.arrays["weight"]]
    shift = -mean * scale
    if "bias" in norm.arrays:
        shift = shift + arrays[norm.arrays["bias"]]
    return scale, shift


def _normed(step: Weighted, norm: Node, arrays: Mapping[str, Floats]) -> Weighted:
    scale, shift = scale_and_shift(norm, arrays)
    weight = (step.weight * scale[:, None, None, None]).astype(np.float32)
    bias = (step.bias * scale + shift).astype(np.float32)
    return replace(step, weight=weight, bias=bias, output=norm.output)


def _adds(node: Node, shapes: Shapes) -> bool:
    return node.op == "add" and len({shapes[name] for name in node.inputs}) == 1


def _clamp(node: Node) -> tuple[float, float] | None:
    if node.op == "clamp":
        low, high = node.attributes["low"], node.attributes["high"]
        return (-math.inf if low is None else low, math.inf if high is None else high)
    return _CLAMPS.get(node.op)


def _alone(node: Node, arrays: Mapping[str, Floats], shapes: Shapes) -> Step:
    """A batch norm that nothing takes in is a convolution of each channel with one weight."""
    if node.op != "batch_norm" or len(shapes[node.output]) not in (1, 3):
        return node
    scale, shift = scale_and_shift(node, arrays)
    return Weighted(
        scale.astype(np.float32)[:, None, None, None],
        shift.astype(np.float32),
        node.inputs[0],
        node.output,
        groups=len(scale),
        module=node.module,
    )
