"""The words that translations of operators share: what is known of a tensor, and short checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from regrow.core.errors import RegrowError

if TYPE_CHECKING:
    from regrow_runtime.graph import Node


@dataclass(frozen=True)
class Value:
    """What the network computes from its input; the shape is without the batch axis."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Array:
    """A parameter or buffer: its name in the state dict, its shape there and its dtype.

    One of two axes may be meant as its transpose.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    transposed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """As of a `Computed`: what it comes from."""
        return (self.name,)


@dataclass(frozen=True)
class Computed:
    """What the network computes from parameters alone, or makes from nothing.

    Attributes:
        reason: how, to complete "its weight is ...".
        names: of the parameters and buffers that it comes from.
        repeated: the stored array that it is for every sample, if it is one.
    """

    reason: str
    names: tuple[str, ...] = ()
    repeated: Array | None = None


@dataclass(frozen=True)
class Site:
    """Where an operator stands.

    Attributes:
        nodes: the graph so far, to append to.
        module: the path of its module in the user's model.
        shape: its result's, without the batch axis; () if it has several results.
        used: which of several results are read.
    """

    nodes: list[Node]
    module: str
    shape: tuple[int, ...] = ()
    used: frozenset[int] = frozenset()

    def emit(
        self, op: str, *inputs: str, arrays: Mapping[str, str] | None = None, **attributes: Any
    ) -> str:
        """Append a node and return its value's name."""
        from regrow_runtime.graph import Node

        # The dot keeps it apart from the graph's inputs, which are Python identifiers.
        output = f"{op}.{len(self.nodes)}"
        self.nodes.append(Node(op, inputs, output, arrays or {}, attributes, self.module))
        return output


Result = str | tuple[str | None, ...]
Translation = Callable[..., Result]


def need(condition: bool, fault: str) -> None:
    """Raise RegrowError with `fault` unless the condition holds."""
    if not condition:
        raise RegrowError(fault)


def as_value(given: Any) -> Value:
    """An operand that must be a value."""
    if isinstance(given, Value):
        return given
    if isinstance(given, Computed):
        raise RegrowError(f"an operand is {given.reason}")
    raise RegrowError(f"an operand is {given.name}, a parameter or buffer")


def as_array(given: Any, role: str) -> str:
    """The name of an operand that must be stored, and in single precision."""
    if isinstance(given, Computed):
        raise RegrowError(f"its {role} is {given.reason}")
    if not isinstance(given, Array):
        raise RegrowError(f"its {role} is computed from the input")
    need(not given.transposed, f"its {role} is a transpose of {given.name}")
    need(
        given.dtype == torch.float32,
        f"its {role} {given.name} holds {given.dtype}, and the runtime computes in float32",
    )
    return given.name


def as_arrays(**roles: Any) -> dict[str, str]:
    """The names of those that are there, by their roles."""
    return {role: as_array(one, role) for role, one in roles.items() if one is not None}


def as_number(given: Any) -> float:
    """A number that single precision can hold."""
    need(abs(given) <= torch.finfo(torch.float32).max, f"a number in it is {given}")
    return float(given)


def as_pair(given: int | Sequence[int]) -> list[int]:
    """For rows and columns; one number stands for both."""
    one = [given] if isinstance(given, int) else list(given)
    return one * 2 if len(one) == 1 else one


def as_axis(axis: int, value: Value) -> int:
    """From 1 on, counted in full tensors; the batch axis is refused."""
    axis %= len(value.shape) + 1
    need(axis > 0, "it works along the batch axis")
    return axis


def as_image(given: Any) -> str:
    """The name of a value of shape (batch, C, H, W); PyTorch takes (C, H, W) too."""
    value = as_value(given)
    need(len(value.shape) == 3, "its input has no (batch, channel, row, column) axes")
    return value.name
