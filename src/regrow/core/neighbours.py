"""Which weights stand before and behind each weight: pure data, read from a run of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Place:
    """A weight where an operation applies it, as a matrix of outputs by inputs.

    Attributes:
        weight: its clean name.
        groups: blocks of the matrix; each joins its share of the outputs with its share of inputs.
        turned: the first dimension holds inputs, as of transposed convolutions and embeddings.
    """

    weight: str
    groups: int = 1
    turned: bool = False


@dataclass(frozen=True)
class Norm:
    """A batch norm with running statistics, by names in the state dict; None without a scale."""

    weight: str | None
    variance: str
    eps: float


@dataclass(frozen=True)
class Link:
    """Outputs of one place are inputs of another.

    Attributes:
        producer: number of the place that computes them.
        consumer: of the place that reads them; None for an output of the network.
        source: for each input of the consumer the output that arrives there, or -1; of an output
            of the network, all outputs in order. Integers, (inputs,).
        norms: batch norms between, as (number, the channel for each input); channels as `source`.
        joins: modules where something is added to the outputs on their way.
        identity: what is added to at one of them has come past a layer unchanged.
    """

    producer: int
    consumer: int | None
    source: Tensor
    norms: tuple[tuple[int, Tensor], ...] = ()
    joins: frozenset[str] = frozenset()
    identity: bool = False


@dataclass(frozen=True)
class Neighbours:
    """All links of a network.

    Attributes:
        places: where weights are applied; a shared weight has several.
        norms: batch norms between them.
        links: from place to place.
        tensors: values by name, of the network as it is at an event; empty before.
    """

    places: tuple[Place, ...]
    norms: tuple[Norm, ...]
    links: tuple[Link, ...]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Of the tensors whose values are asked for."""
        scales = {norm.weight for norm in self.norms} - {None}
        return frozenset(
            {place.weight for place in self.places}
            | {norm.variance for norm in self.norms}
            | {str(name) for name in scales}
        )
