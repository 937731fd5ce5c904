"""The coupled groups of a network as a user sees them."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError, unknown
from regrow.core.groups import Group
from regrow.engine.surgery import Keep
from regrow.model.coupling.groups import Bound, Coupling
from regrow.model.coupling.indices import Classes, Dim
from regrow.model.inventory import Entry, Inventory, names_of
from regrow.parts.units.pooling import along


class Groups(Sequence[Group]):
    """The coupled groups of a network, and the layers that cannot lose outputs.

    Attributes:
        coupling: what they were read from.
        bound: layers that cannot lose outputs, and why.
        needed: groups that cannot leave whole, and why; all others may.
    """

    def __init__(
        self,
        coupling: Coupling,
        groups: Sequence[Group],
        bound: Sequence[Bound],
        needed: Mapping[str, str] | None = None,
    ) -> None:
        self.coupling, self._groups, self.bound = coupling, tuple(groups), tuple(bound)
        self.needed = needs_of(coupling, groups) if needed is None else dict(needed)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            for group in self._groups:
                if group.name == index:
                    return group
            raise unknown("group", index, [group.name for group in self._groups])
        return self._groups[index]

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def check_of(self, model: nn.Module) -> None:
        """Refuse a network that these are not of.

        Raises:
            RegrowError: it has other parameters, or of other shapes.
        """
        own = {name: tuple(p.shape) for name, p in model.named_parameters()}
        if own != dict(self.coupling.trained):
            differing = own.items() ^ self.coupling.trained.items()
            raise RegrowError(
                f"the groups are of another network: {min(differing)[0]} differs; find them anew "
                "with regrow.groups."
            )

    def only(self, include: Sequence[str]) -> Groups:
        """Those whose names some glob matches; the others count as bound.

        Raises:
            RegrowError: a glob matches no group.
        """
        names = [group.name for group in self]
        wanted: set[str] = set()
        for glob in include:
            hits = fnmatch.filter(names, glob)
            if not hits and glob != "*":
                raise unknown("group", glob, names)
            wanted.update(hits)
        rest = [Bound(g.name, len(g), "not included") for g in self if g.name not in wanted]
        left = [g for g in self if g.name in wanted]
        return Groups(self.coupling, left, [*self.bound, *rest], self.needed)

    def gone(self, keep: Mapping[str, Tensor]) -> frozenset[int]:
        """The classes of the units that are not kept.

        Raises:
            RegrowError: a group is not known, a mask does not fit it, or it would be emptied and
                may not be; or no output would depend on the example without all that are emptied.
        """
        found = self.classes(keep)
        empty = [name for name, stays in keep.items() if not torch.as_tensor(stays).any()]
        for name in empty:
            if name in self.needed:
                raise RegrowError(
                    f"{name} would lose all of its {len(self[name])} units; keep at least one: "
                    f"{self.needed[name]}."
                )
        if len(empty) > 1 and not self.holds_without(empty):
            raise RegrowError(
                f"without any units of {', '.join(empty)} an output of the network would no longer "
                "depend on the example; keep at least one unit of one of them."
            )
        return found

    def holds_without(self, names: Iterable[str]) -> bool:
        """Whether all outputs still depend on the example if whole groups go."""
        return _holds(self.coupling, [self[name] for name in names])

    def classes(self, keep: Mapping[str, Tensor]) -> frozenset[int]:
        """As `gone`, of any choice.

        Raises:
            RegrowError: a group is not known, or a mask does not fit it.
        """
        found: set[int] = set()
        for name, stays in keep.items():
            group = self[name]
            stays = torch.as_tensor(stays)
            if stays.dtype != torch.bool or stays.shape != (len(group),):
                raise RegrowError(
                    f"{name} has {len(group)} units; give a boolean for each, not "
                    f"{stays.dtype} of shape {tuple(stays.shape)}."
                )
            found.update(np.array(group.classes)[~stays.cpu().numpy()].tolist())
        return frozenset(found)

    def kept(self, gone: frozenset[int]) -> Keep:
        """The indices that stay when classes go, of the tensors that lose any."""
        found: dict[str, dict[int, Tensor]] = {}
        looked: dict[int, Tensor | None] = {}  # by array; many dimensions share one
        for name, dims in self.coupling.parameters.items() if gone else ():
            for axis, dim in enumerate(dims):
                if dim is None:
                    continue
                shared = self.coupling.indices.shared(dim)
                if id(shared) not in looked:
                    stays = self.coupling.stays(shared, gone)
                    some = not stays.all()
                    looked[id(shared)] = torch.from_numpy(stays.nonzero()[0]) if some else None
                indices = looked[id(shared)]
                if indices is not None:
                    found.setdefault(name, {})[axis] = indices
        return found

    def masks(self, keep: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Keep masks of tensors of the network, each of its shape and on its device.

        Args:
            keep: which units stay, by group.
            tensors: parameters or buffers by name.
        """
        kept = self.kept(self.gone(keep))
        found = {}
        for name, tensor in tensors.items():
            mask = torch.ones(tensor.shape, dtype=torch.bool, device=tensor.device)
            for dim, indices in kept.get(name, {}).items():
                gone = torch.ones(tensor.shape[dim], dtype=torch.bool)
                gone[indices] = False
                mask.index_fill_(dim, gone.nonzero().flatten().to(tensor.device), False)
            found[name] = mask
        return found

    def units(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which units stay by keep masks of weights: units go of which nothing is kept.

        Raises:
            RegrowError: a mask is of no parameter of the network, or of another shape.
        """
        for name, mask in masks.items():
            shape = self.coupling.trained.get(self.coupling.tied.get(name, name))
            if shape != tuple(mask.shape):
                raise RegrowError(
                    f"the mask of {name} has shape {tuple(mask.shape)}; the network has {shape}."
                )
        found = {}
        for group in self:
            # Where a buffer computes the units, what reads them tells.
            known = [m for m in group.produced if m.name in masks] or [
                m for m in group.members if m.name in masks
            ]
            if known:
                alive = torch.stack([along(m, masks[m.name]) > 0 for m in known])
                found[group.name] = alive.any(0)
        return found

    def members(self, model: nn.Module) -> Inventory:
        """The parameters that lose entries with units, under the names of the inventory."""
        classes = frozenset(unit for group in self for unit in group.classes)
        touched = self.kept(classes)
        # Of an embedding that is tied to a head, the inventory has the head's name.
        own = names_of(model)
        return Inventory(
            tuple(
                Entry(own.get(id(parameter), name), tuple(parameter.shape), "member")
                for name, parameter in model.named_parameters()
                if name in touched
            )
        )

    def macs(self, keep: Mapping[str, Tensor] | None = None) -> int:
        """Multiply-adds for the example, with units removed."""
        gone = self.gone(keep or {})
        total = 0
        for work in self.coupling.works:
            count = work.count
            for dim in work.dims:
                assert dim is not None
                count *= int(self.coupling.stays(dim, gone).sum()) if gone else len(dim)
            total += count
        return total

    def parameters(self, keep: Mapping[str, Tensor] | None = None) -> int:
        """Parameters of the network, with units removed; tied ones count once."""
        gone = self.gone(keep or {})
        kept = self.kept(gone)
        total = 0
        for name, shape in self.coupling.trained.items():
            sizes = list(shape)
            for dim, indices in kept.get(name, {}).items():
                sizes[dim] = len(indices)
            total += math.prod(sizes)
        return total

    def rows(self) -> list[dict[str, Any]]:
        """Of each group, as plain data: name, units, what one unit costs, members, whether it may
        leave whole, and why it is bound."""
        found = []
        for group in self:
            one = torch.ones(len(group), dtype=torch.bool)
            one[0] = False
            keep = {group.name: one} if len(group) > 1 else {}
            found.append(
                {
                    "group": group.name,
                    "units": len(group),
                    "parameters": self.parameters() - self.parameters(keep) if keep else None,
                    "macs": self.macs() - self.macs(keep) if keep else None,
                    "members": [str(m) for m in group.members if m.name in self.coupling.trained],
                    "whole": group.name not in self.needed,
                    "reason": None,
                }
            )
        for bound in self.bound:
            found.append(
                {
                    "group": bound.layer,
                    "units": bound.size,
                    "parameters": None,
                    "macs": None,
                    "members": [],
                    "whole": False,
                    "reason": bound.reason,
                }
            )
        return found

    def __str__(self) -> str:
        rows = self.rows()
        wide = max([len("group"), *(len(row["group"]) for row in rows)])
        lines = [
            f"{'group':<{wide}}  {'units':>6}  {'parameters':>11}  {'MACs':>13}  whole   members"
        ]
        for row in rows:
            each = [
                f"{row[key]:,}" if row[key] is not None else "" for key in ("parameters", "macs")
            ]
            what = ", ".join(row["members"]) if row["reason"] is None else f"bound: {row['reason']}"
            lines.append(
                f"{row['group']:<{wide}}  {row['units']:>6,}  {each[0]:>11}  {each[1]:>13}  "
                f"{'may go' if row['whole'] else '':<6}  {what}"
            )
        lines.append(
            "parameters and multiply-adds are those that go with one unit, for the example"
        )
        if self.coupling.unknown:
            where = "; ".join(
                f"{name} in {', '.join(each or 'the network' for each in modules[:3])}"
                for name, modules in self.coupling.unknown.items()
            )
            lines.append(f"operations without a rule bind what they touch: {where}")
        return "\n".join(lines)


def needs_of(coupling: Coupling, groups: Sequence[Group]) -> dict[str, str]:
    """Groups that cannot leave whole, and why; those whose code does not follow apart."""
    found = {}
    for group in groups:
        sizes = [len(_given(coupling.parameters[m.name][m.dim])) for m in group.members]
        if any(m.indices.numel() < n for m, n in zip(group.members, sizes, strict=True)):
            found[group.name] = "its layers hold other channels too"
    free = [group for group in groups if group.name not in found]
    needed = coupling.reach.needed(_emptied_by(coupling, free))
    why = "without it an output of the network would not depend on the example"
    found.update((each.name, why) for i, each in enumerate(free) if needed >> i & 1)
    return found


def _emptied_by(coupling: Coupling, groups: Sequence[Group]) -> list[int]:
    """Of each dimension that `reach` knows, the groups that hold all of its indices, as bits."""
    owner = np.full(coupling.indices.count, len(groups))
    for i, group in enumerate(groups):
        owner[list(group.classes)] = i
    found = []
    for dim in coupling.reach.dims:
        rows = coupling.indices.going(dim)
        owners = owner[rows[:, 0]]
        held = np.unique(owners * len(dim) + rows[:, 1]) // len(dim)  # each index once
        counts = np.bincount(held, minlength=len(groups))[: len(groups)]
        found.append(sum(1 << i for i in np.flatnonzero(counts == len(dim)).tolist()))
    return found


def _holds(coupling: Coupling, groups: Iterable[Group]) -> bool:
    gone = frozenset(unit for group in groups for unit in group.classes)
    return coupling.reach.outputs_learn(coupling.emptied(gone))


def _given(dim: Dim) -> Classes:
    assert dim is not None
    return dim
