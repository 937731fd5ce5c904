"""What scores are computed from, declared before it is collected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.neighbours import Neighbours

Kind = Literal[
    "weight",
    "gradient",
    "gradient_square",
    "hessian_gradient",
    "inverse_fisher",
    "flow",
    "activation",
    "damage",
    "trial",
    "neighbours",
]
Which = Literal["current", "dense", "reference", "remembered"]
Statistics = Literal["batch", "running"]


@dataclass(frozen=True)
class InverseFisher:
    """Which inverse of the empirical Fisher is asked for.

    Attributes:
        gradients: N, how many batches are read, a gradient each; of data with fewer, all of them
            once.
        chunk: entries of a block; None takes the most that fit `memory_gib`.
        damping: lambda, added to the diagonal.
        memory_gib: the most memory, in GiB, that collecting may take on top of the network's own
            gradients and activations.

    Raises:
        RegrowError: a value is out of its range.
    """

    gradients: int = 400
    chunk: int | None = None
    damping: float = 1e-5
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        counts = {"gradients": self.gradients, "chunk": 1 if self.chunk is None else self.chunk}
        for what, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise RegrowError(f"{what}={count!r} is a count of at least 1.")
        if not 0 < self.damping < math.inf:
            raise RegrowError(
                f"damping={self.damping!r} must be above 0: of fewer gradients than a block has "
                "entries the Fisher has no inverse without it."
            )
        if not self.memory_gib > 0:
            raise RegrowError(f"memory_gib={self.memory_gib!r} must be above 0.")


class Need(NamedTuple):
    """One kind of evidence about one network.

    Attributes:
        kind: "weight" (w), "gradient" (mean over batches of dL/dw, removed entries included),
            "gradient_square" (mean over batches of the square of the batch-mean gradient),
            "hessian_gradient" (Hg: the Hessian of the mean loss over all weights, times its
            gradient), "flow" (dR/d|w|, where R is the sum of the outputs for an input of ones and
            absolute weights; float64),
            "inverse_fisher" (blocks of the inverse of the damped empirical Fisher, see `how`),
            "activation" (mean |output| of each output channel of the weight's layer),
            "damage" (per layer, the similarity of the layer's activations to the dense
            network's; low means much damage), "trial" (a way to try a regrowth out), or
            "neighbours" (the weights before and behind each weight, and the norms between).
        of: the network as it is now ("current"), as it was when regrow was attached ("dense"),
            the less sparse network kept for comparison ("reference"), or, of weights only, the
            network as it is with the remembered values at its removed entries ("remembered").
        how: of "inverse_fisher", and of nothing else: which one.
    """

    kind: Kind
    of: Which = "current"
    how: InverseFisher | None = None


@dataclass(frozen=True)
class Evidence:
    """Evidence collected for one event; tensors by clean weight name.

    Attributes:
        tensors: for each need of weights or gradients, a tensor of the weight's shape per weight;
            of an inverse Fisher one of shape (blocks, size, size), whose blocks are consecutive
            entries of the flattened weight (`regrow.core.blocks`).
        damage: similarity per weight name, in [-1, 1], or None when nobody asked for it.
        key: identifies the event (program seed, event number): what random parts derive seeds
            from.
        trial: takes units to keep by weight name, regrows so, fine-tunes briefly and returns the
            score of the outcome; everything is put back afterwards. None when nobody asked for it.
        neighbours: with the current values, removed weights being zero; None when nobody asked.
        keep: how many weights of those in `alive` the event will keep; None where none is cut.
        alive: which weights compete, by name, of the layers that the plan may prune; None with
            `keep`.
    """

    tensors: Mapping[Need, Mapping[str, Tensor]]
    damage: Mapping[str, float] | None = None
    key: tuple[object, ...] = field(default=())
    trial: Callable[[Mapping[str, int]], float] | None = None
    neighbours: Neighbours | None = None
    keep: int | None = None
    alive: Mapping[str, Tensor] | None = None

    def __getitem__(self, need: Need) -> Mapping[str, Tensor]:
        if need not in self.tensors:
            raise RegrowError(
                f"evidence {need.kind!r} of the {need.of} network was used but not declared in "
                "`needs`; add it there so that it is collected."
            )
        return self.tensors[need]
