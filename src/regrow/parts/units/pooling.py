"""From entries of parameters to units of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.groups import Group, Member


def along(member: Member, entries: Tensor) -> Tensor:
    """Sums of a tensor's entries that belong to each unit; (units,) in float32.

    Args:
        entries: of the parameter's shape.
    """
    others = [dim for dim in range(entries.dim()) if dim != member.dim]
    line = entries.float().sum(others) if others else entries.float()
    return line[member.indices.to(line.device)].sum(1).cpu()


def pooled(
    group: Group, entries: Mapping[str, Tensor], members: Sequence[Member] | None = None
) -> Tensor:
    """Sums over all members of a group of which there are entries; (units,).

    Raises:
        RegrowError: there are none.
    """
    every = group.members if members is None else members
    known = scored(group, [member for member in every if member.name in entries])
    return torch.stack([along(member, entries[member.name]) for member in known]).sum(0)


def scored(group: Group, members: Sequence[Member]) -> Sequence[Member]:
    """The members that a criterion goes by, if there are any.

    Raises:
        RegrowError: there are none: scores would be zeros, and units go in no order.
    """
    if not members:
        raise RegrowError(
            f"what computes {group.name} has nothing that this criterion can score; take 'norm', "
            "which counts what reads the units too, or exclude the layer."
        )
    return members
