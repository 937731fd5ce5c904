"""What scores are computed from, declared before it is collected."""

from __future__ import annotations

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
    "flow",
    "activation",
    "damage",
    "trial",
    "neighbours",
]
Which = Literal["current", "dense", "reference", "remembered"]
Statistics = Literal["batch", "running"]


class Need(NamedTuple):
    """One kind of evidence about one network.

    Attributes:
        kind: "weight" (w), "gradient" (mean over batches of dL/dw, removed entries included),
            "gradient_square" (mean over batches of the square of the batch-mean gradient),
            "hessian_gradient" (Hg: the Hessian of the mean loss over all weights, times its
            gradient), "flow" (dR/d|w|, where R is the sum of the outputs for an input of ones and
            absolute weights; float64),
            "activation" (mean |output| of each output channel of the weight's layer),
            "damage" (per layer, the similarity of the layer's activations to the dense
            network's; low means much damage), "trial" (a way to try a regrowth out), or
            "neighbours" (the weights before and behind each weight, and the norms between).
        of: the network as it is now ("current"), as it was when regrow was attached ("dense"),
            the less sparse network kept for comparison ("reference"), or, of weights only, the
            network as it is with the remembered values at its removed entries ("remembered").
    """

    kind: Kind
    of: Which = "current"


@dataclass(frozen=True)
class Evidence:
    """Evidence collected for one event; tensors by clean weight name.

    Attributes:
        tensors: for each need of weights or gradients, a tensor of the weight's shape per weight.
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
