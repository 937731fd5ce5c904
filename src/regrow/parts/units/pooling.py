"""From entries of parameters to units of a group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

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
    group: Group, entries: Mapping[str, Tensor], members: Iterable[Member] | None = None
) -> Tensor:
    """Sums over all members of a group of which there are entries; (units,)."""
    total = torch.zeros(len(group))
    for member in group.members if members is None else members:
        if member.name in entries:
            total += along(member, entries[member.name])
    return total
