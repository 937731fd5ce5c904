"""Coupled groups: channels or heads that can be removed, with all that belongs to each."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Member:
    """A dimension of a parameter or buffer that loses indices with a group's units.

    Attributes:
        name: of the tensor in the state dict.
        dim: the dimension.
        indices: for each unit, which of its indices; (units, indices per unit).
        produces: it computes the units, rather than reading them.
    """

    name: str
    dim: int
    indices: Tensor
    produces: bool

    def __str__(self) -> str:
        each = self.indices.shape[1]
        return f"{self.name}:{self.dim}" + (f" x{each}" if each > 1 else "")


@dataclass(frozen=True)
class Group:
    """Units that can be removed one by one: channels or heads with all that belongs to them.

    Attributes:
        name: the layer that computes them.
        members: of every unit.
        classes: number of each unit in the equations behind the group.
    """

    name: str
    members: tuple[Member, ...]
    classes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def produced(self) -> tuple[Member, ...]:
        """Members that compute the units: filters, biases, scales and shifts."""
        return tuple(member for member in self.members if member.produces)
