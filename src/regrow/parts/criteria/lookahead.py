"""Lookahead: magnitude with a look at the layers before and behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.neighbours import Link, Neighbours, Place

Residual = Literal["sum", "identity", "refuse"]


@dataclass(frozen=True)
class Lookahead:
    """The distortion of a weight, its input and its output layer together, when it is removed.

    score(w)^2 = w^2 |W_before[k, :]|^2 |W_after[:, j]|^2 for a weight from input k to output j: its
    square, times the squares of the weights that compute its input, times the squares of those that
    read its output, all as they are now, removed ones zero. Where nothing comes before or after,
    the factor is 1. Each layer's scores are divided by their L2 norm, so that layers compare.

    Attributes:
        norms: batch norms count with the layer before them: its outputs are multiplied by
            gamma / sqrt(running variance + eps).
        residual: where several layers are added up, or a weight is used in several places: "sum"
            adds the squares of all layers on either side; "identity" adds 1 more for a way past a
            layer that leaves everything unchanged; "refuse" raises.

    Source:
        Park et al. 2020, "Lookahead: a far-sighted alternative of magnitude-based
        pruning".

    Departures:
        Neighbours come from a run of the network, not from the order of its modules. The norm's own
        eps stands under the root, not 1e-10.

    Raises:
        RegrowError: the policy is not known.
    """

    norms: bool = True
    residual: Residual = "sum"

    needs = frozenset({Need("weight"), Need("neighbours")})

    def __post_init__(self) -> None:
        if self.residual not in get_args(Residual):
            raise RegrowError(
                f"residual={self.residual!r} is none of {', '.join(get_args(Residual))}."
            )

    def check(self, neighbours: Neighbours, weights: frozenset[str]) -> None:
        """See `regrow.core.protocols.ReadsNeighbours`.

        Raises:
            RegrowError: the policy is "refuse", and a weight of these stands beside a sum or is
                used in several places.
        """
        if self.residual != "refuse":
            return
        names = [place.weight for place in neighbours.places]
        shared = {name for name in names if names.count(name) > 1}
        joined = {
            names[number]
            for link in neighbours.links
            for number in (link.producer, link.consumer)
            if link.joins and number is not None
        }
        found = [name for name in dict.fromkeys(names) if name in (shared | joined) & weights]
        if found:
            raise RegrowError(
                f"residual='refuse', but {', '.join(found)} stand beside a sum of layers or are "
                "used in several places; exclude them, or take residual='sum' or 'identity'."
            )

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        around = evidence.neighbours
        if around is None:
            raise RegrowError(
                "evidence 'neighbours' was not collected: lookahead reads from a run on an "
                "example which layers are neighbours; pass example=, one batch of inputs."
            )
        squares = distortion(around, evidence[Need("weight")], self.norms, self.residual)
        scores = {name: square.sqrt() for name, square in squares.items()}
        tiny = torch.finfo(torch.float64).tiny
        return {name: score / score.norm().clamp_min(tiny) for name, score in scores.items()}


def distortion(
    around: Neighbours, weights: Mapping[str, Tensor], norms: bool, residual: Residual
) -> dict[str, Tensor]:
    """The squared distortion that removing each weight makes, float64, of the weights' shapes.

    Args:
        around: neighbours, with their values.
        weights: those to score, by name; a shared one gets the sum over its places.
        norms, residual: see `Lookahead`.
    """
    rows = [_matrix(p, around.tensors[p.weight]).sum((2, 3)).flatten() for p in around.places]
    columns = [_matrix(p, around.tensors[p.weight]).sum((1, 3)).flatten() for p in around.places]
    before, after = [_Side.of(each) for each in columns], [_Side.of(each) for each in rows]
    for link in around.links:
        source = link.source.to(rows[link.producer].device)
        inputs = (source >= 0).nonzero().flatten()
        outputs = source[inputs]
        between = _between(around, link, inputs) if norms else torch.ones_like(inputs).double()
        identity = link.identity and residual == "identity"
        reads = between
        if link.consumer is not None:
            before[link.consumer].add(inputs, between * rows[link.producer][outputs], identity)
            reads = between * columns[link.consumer][inputs]
        after[link.producer].add(outputs, reads, identity)
    found: dict[str, Tensor] = {}
    for number, place in enumerate(around.places):
        if place.weight in weights:
            weight = weights[place.weight].detach()
            factors = _factors(place, before[number].total, after[number].total)
            factors = factors.reshape(*factors.shape[:2], *[1] * (weight.dim() - 2))
            square = weight.double().square() * factors.to(weight.device)
            found[place.weight] = found.get(place.weight, 0) + square
    return found


@dataclass
class _Side:
    """Squares of neighbours by index of one side of a place; 1 where there is none."""

    squares: Tensor
    met: Tensor
    past: Tensor

    @classmethod
    def of(cls, like: Tensor) -> _Side:
        none = torch.zeros_like(like, dtype=torch.bool)
        return cls(torch.zeros_like(like), none, none.clone())

    def add(self, indices: Tensor, squares: Tensor, identity: bool) -> None:
        self.squares.index_add_(0, indices, squares)
        self.met[indices] = True
        if identity:
            self.past[indices] = True

    @property
    def total(self) -> Tensor:
        return torch.where(self.met, self.squares + self.past.double(), 1.0)


def _matrix(place: Place, tensor: Tensor) -> Tensor:
    """Squares of a weight, (groups, outputs, inputs, entries)."""
    squares = tensor.detach().double().square()
    found = squares.reshape(place.groups, -1, *tensor.shape[1:2], tensor[0, 0].numel())
    return found.transpose(1, 2) if place.turned else found


def _factors(place: Place, before: Tensor, after: Tensor) -> Tensor:
    """The product of both sides for each entry of the first two dimensions of a weight."""
    a, b = after.view(place.groups, -1, 1), before.view(place.groups, 1, -1)
    found = a * b
    if place.turned:
        found = found.transpose(1, 2)
    return found.reshape(-1, found.shape[2])


def _between(around: Neighbours, link: Link, inputs: Tensor) -> Tensor:
    """The squares of the scales of the norms on the way to inputs."""
    found = torch.ones(len(inputs), dtype=torch.float64, device=inputs.device)
    for number, channels in link.norms:
        norm = around.norms[number]
        scale = 1 / (around.tensors[norm.variance].detach().double() + norm.eps)
        if norm.weight is not None:
            scale = scale * around.tensors[norm.weight].detach().double().square()
        found *= scale.to(inputs.device)[channels.to(inputs.device)[inputs]]
    return found
