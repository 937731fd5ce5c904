"""The contracts of the parts. Each is a frozen dataclass with one or two pure methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from regrow.core.budget import Budget
from regrow.core.evidence import Evidence, Need
from regrow.core.neighbours import Neighbours
from regrow.core.step import Step


class Weight(Protocol):
    """What parts may know of a prunable weight (see `regrow.model.inventory.Entry`)."""

    @property
    def name(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def layer(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def kind(self) -> str: ...


class Criterion(Protocol):
    """Importance of every weight: higher = keep. Also ranks removed entries for regrowth."""

    @property
    def needs(self) -> frozenset[Need]: ...

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of each weight's shape by name; -inf marks what must not be chosen."""
        ...


@runtime_checkable
class ReadsNeighbours(Protocol):
    """A criterion that some ways of joining layers do not suit."""

    def check(self, neighbours: Neighbours, weights: frozenset[str]) -> None:
        """Raise RegrowError, before any work, where these weights cannot be scored."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A criterion that tells how a cut turned out by it."""

    def told(self, evidence: Evidence, keep: Mapping[str, Tensor]) -> dict[str, Any]:
        """Plain data for the event's log entry, given what stays."""
        ...


class Pattern(Protocol):
    """What is kept or removed together: elements, N of M, blocks."""

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise RegrowError when the weight does not fit the pattern."""
        ...

    def size(self, shape: tuple[int, ...]) -> int:
        """Weights per unit."""
        ...

    def capacity(self, shape: tuple[int, ...]) -> int:
        """The most units that may be kept."""
        ...

    def pool(self, scores: Tensor) -> Tensor:
        """One score per unit, flat; -inf for a unit that the pattern forbids."""
        ...

    def expand(self, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The boolean mask, of the weight's shape, of the units kept."""
        ...


class Allocation(Protocol):
    """How many units each layer keeps."""

    @property
    def needs(self) -> frozenset[Need]: ...

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        """Units per layer within the budget's bounds, summing to its total exactly."""
        ...


class Schedule(Protocol):
    """The target density as a function of time in the stage.

    Targets are absolute, so a rising one asks for regrowth.
    """

    @property
    def sparsity(self) -> float:
        """Where it ends."""
        ...

    @property
    def last(self) -> Step:
        """The step of its last event, counted from the start of the stage."""
        ...

    def target(self, step: Step) -> float | None:
        """The density to reach at this step of the stage, or None when nothing is due."""
        ...


@dataclass(frozen=True)
class Update:
    """What a signal-driven schedule wants after a measurement.

    Attributes:
        state: the schedule's new state, plain data.
        target: the density to reach now, or None.
        remember: the weights as they are now are the best of this cut.
        restore: go back to the best weights before anything else.
        done: the stage has ended.
    """

    state: dict[str, Any]
    target: float | None = None
    remember: bool = False
    restore: bool = False
    done: bool = False


@runtime_checkable
class SignalSchedule(Protocol):
    """A schedule driven by what the user measures, such as validation accuracy."""

    @property
    def sparsity(self) -> float:
        """Where it ends."""
        ...

    @property
    def monitor(self) -> str:
        """The name of the signal that it watches."""
        ...

    def start(self) -> Update:
        """The first state and target."""
        ...

    def after_cut(self, state: dict[str, Any], signals: Mapping[str, float]) -> Update:
        """Take note of the network's quality right after a cut, before training."""
        ...

    def update(self, state: dict[str, Any], signals: Mapping[str, float]) -> Update:
        """Take note of the quality after an epoch."""
        ...


class Repair(Protocol):
    """How the weights that stay move when others are cut."""

    @property
    def needs(self) -> frozenset[Need]: ...

    def delta(
        self, evidence: Evidence, before: Mapping[str, Tensor], keep: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What is added to each weight of `keep`; zero wherever nothing stays.

        Args:
            evidence: of the network before the cut.
            before, keep: keep masks before and after it; `keep` lies within `before`.
        """
        ...


class Value(Protocol):
    """The value with which a regrown weight returns."""

    @property
    def needs(self) -> frozenset[Need]: ...

    def values(self, weight: Weight, evidence: Evidence) -> Tensor | None:
        """A tensor of the weight's shape, used at regrown entries only; None means zero."""
        ...


class Penalty(Protocol):
    """A pull towards zero that comes before a removal: chosen early, removed late."""

    @property
    def every(self) -> Step:
        """The interval at which its strength changes."""
        ...

    @property
    def choice(self) -> Step:
        """When it is chosen what shall go, from the start of the stage."""
        ...

    def strengths(self, now: Step) -> tuple[float, float]:
        """On what shall go and on what stays; before the choice they are one."""
        ...


@dataclass(frozen=True)
class Number:
    """A number that is learned for every layer, beside its weights.

    Attributes:
        name: by which formulas know it.
        start: its first value.
        lr, decay: its learning rate at first and its weight decay, under AdamW.
        least: it does not go below.
    """

    name: str
    start: float
    lr: float
    decay: float
    least: float


class Reparam(Protocol):
    """Weights that a network uses as a function of those that are trained.

    The trained ones get the gradient of those that are used, as it is.
    """

    @property
    def numbers(self) -> tuple[Number, ...]:
        """What is learned for every layer."""
        ...

    def span(self, trained: Tensor) -> Tensor:
        """What the function needs to know of a layer's trained weights as a whole."""
        ...

    def used(self, trained: Tensor, span: Tensor, numbers: Mapping[str, Tensor]) -> Tensor:
        """The weights that are used, of the shape of `trained`."""
        ...

    def gradients(
        self, trained: Tensor, span: Tensor, numbers: Mapping[str, Tensor], grad: Tensor
    ) -> dict[str, Tensor]:
        """Of the loss by each number, given that by the weights that are used."""
        ...

    def told(self, numbers: Mapping[str, Tensor]) -> dict[str, Any]:
        """Plain data of a layer for log entries."""
        ...
