"""Groups that can be cut, masks for them, and networks without them."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError, unknown
from regrow.core.names import unwrap
from regrow.engine.sizes import candidates, choices, known_sizes, with_attributes
from regrow.engine.surgery import Edits, IndexMap, Keep, apply, tensors_of
from regrow.model.coupling.groups import Bound, Coupling, Group, at_rest, call, couple
from regrow.model.coupling.tracer import tensors_of as tensors_in

_CLOSE = 1e-4  # of the largest output


class Groups(Sequence[Group]):
    """The coupled groups of a network, and the layers that cannot lose outputs.

    Attributes:
        coupling: what they were read from.
        bound: layers that cannot lose outputs, and why.
    """

    def __init__(self, coupling: Coupling, groups: Sequence[Group], bound: Sequence[Bound]) -> None:
        self.coupling, self._groups, self.bound = coupling, tuple(groups), tuple(bound)

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

    def macs(self, keep: Mapping[str, Tensor] | None = None) -> int:
        """Multiply-adds for the example, with units removed."""
        gone = _gone(self, keep or {})
        total = 0
        for work in self.coupling.works:
            count = work.count
            for dim in work.dims:
                assert dim is not None
                count *= int(self.coupling.stays(dim, gone).sum()) if gone else len(dim)
            total += count
        return total


@dataclass(frozen=True)
class Shrunk:
    """A smaller network, and how it came about.

    Attributes:
        model: with tensors that are physically smaller.
        index_map: by which optimiser state, averages and masks follow.
        edits: by which a fresh network of the class becomes as small.
    """

    model: nn.Module
    index_map: IndexMap
    edits: Edits


def find_groups(model: nn.Module, example: Any, *, exclude: Sequence[str] = ()) -> Groups:
    """What can be removed from a network, unit by unit, and what cannot.

    One unit of every group is removed for a trial: groups whose code does not follow a cut are
    found so, and count as bound.

    Args:
        model: is left as it was.
        example: a tensor, a tuple of positional or a dictionary of keyword arguments.
        exclude: layers, by glob, whose outputs shall stay.

    Raises:
        RegrowError: see `couple`; a glob matches no layer.
    """
    model = unwrap(model)
    coupling = couple(model, example, _excluded(model, exclude))
    found = Groups(coupling, coupling.groups, coupling.bound)
    bad = _culprits(model, example, found)
    if not bad:
        return found
    why = "the code does not follow a cut"
    more = [Bound(group.name, len(group), why) for group in bad]
    return Groups(coupling, [g for g in found if g not in bad], [*coupling.bound, *more])


def shrink(
    model: nn.Module,
    example: Any,
    keep: Mapping[str, Tensor],
    *,
    groups: Groups | None = None,
) -> Shrunk:
    """A network without the units that are not kept; the given one stays as it is.

    Args:
        model: the network.
        example: as for `groups`.
        keep: for names of groups, which units stay: boolean, one for each unit.
        groups: of this network, if they are known already.

    Returns:
        a network that computes what `masked` does, to rounding, checked on the example.

    Raises:
        RegrowError: a group would be emptied, or keep does not fit the groups; the network's code
            does not follow the cut.
    """
    model = unwrap(model)
    found = find_groups(model, example) if groups is None else groups
    gone = _gone(found, keep)
    kept = _kept(found.coupling, gone)
    done = _cut(model, example, found.coupling, kept, gone, masked(model, keep, groups=found))
    if done is None:
        raise RegrowError(
            "the network without these units does not compute what it does with zeros in their "
            "place, so its code does not follow the cut; remove fewer groups at once to find which."
        )
    return done


def masked(model: nn.Module, keep: Mapping[str, Tensor], *, groups: Groups) -> nn.Module:
    """A copy with zeros for all parameters of the units that are not kept."""
    made = copy.deepcopy(unwrap(model))
    parameters = dict(made.named_parameters(remove_duplicate=False))
    kept = _kept(groups.coupling, _gone(groups, keep))
    with torch.no_grad():
        for name in kept.keys() & parameters.keys():
            parameter = parameters[name]
            for dim, indices in kept[name].items():
                rest = torch.ones(parameter.shape[dim], dtype=torch.bool)
                rest[indices] = False
                parameter.index_fill_(dim, rest.nonzero().flatten().to(parameter.device), 0)
    return made


def _gone(groups: Groups, keep: Mapping[str, Tensor]) -> frozenset[int]:
    """The classes of the units that are not kept."""
    gone: set[int] = set()
    for name, stays in keep.items():
        group = groups[name]
        stays = torch.as_tensor(stays)
        if stays.dtype != torch.bool or stays.shape != (len(group),):
            raise RegrowError(
                f"{name} has {len(group)} units; give a boolean for each, not "
                f"{stays.dtype} of shape {tuple(stays.shape)}."
            )
        if not stays.any():
            raise RegrowError(
                f"{name} would lose all of its {len(group)} units; keep at least one."
            )
        gone.update(np.array(group.classes)[~stays.numpy()].tolist())
    return frozenset(gone)


def _kept(coupling: Coupling, gone: frozenset[int]) -> Keep:
    found: dict[str, dict[int, Tensor]] = {}
    for name, dims in coupling.parameters.items():
        for axis, dim in enumerate(dims):
            if dim is None:
                continue
            stays = coupling.stays(dim, gone)
            if not stays.all():
                found.setdefault(name, {})[axis] = torch.from_numpy(stays.nonzero()[0])
    return found


def _cut(
    model: nn.Module,
    example: Any,
    coupling: Coupling,
    kept: Keep,
    gone: frozenset[int],
    reference: nn.Module,
) -> Shrunk | None:
    """The smaller network, if with some attributes it computes what the masked one does."""
    shapes = {name: tuple(tensors_of(model)[name].shape) for name in kept}
    plain = Edits(shapes, kept, tuple(known_sizes(model, coupling, kept, gone)))
    expected = _outputs(reference, example)
    possible = candidates(model, coupling, gone)
    for choice in choices(possible):
        edits = with_attributes(plain, [each for key in choice for each in possible[key]])
        made = apply(model, edits)
        try:
            found = _outputs(made, example)
        except Exception:  # code may fail in any way where sizes do not fit
            continue
        if _agree(found, expected):
            return Shrunk(made, IndexMap(kept, shapes), edits)
    return None


def _outputs(model: nn.Module, example: Any) -> list[Tensor]:
    with at_rest(model):
        return [each for each in tensors_in(call(model, example)) if each.is_floating_point()]


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    if [each.shape for each in found] != [each.shape for each in expected]:
        return False
    return all(
        bool(((a - b).abs() <= _CLOSE * b.abs().max() + 1e-7).all())
        for a, b in zip(found, expected, strict=True)
    )


def _culprits(model: nn.Module, example: Any, groups: Groups) -> list[Group]:
    """Groups that cannot lose a unit, because code gives their sizes in its own way.

    Those whose sizes are given by modules of the same classes are tried together.
    """
    if _follows(model, example, groups, list(groups)):
        return []
    alike: dict[frozenset[str], list[Group]] = {}
    for group, key in zip(groups, _codes(model, groups), strict=True):
        alike.setdefault(key, []).append(group)
    bad: list[Group] = []
    for tried in alike.values():
        if not _follows(model, example, groups, tried):
            bad += tried
    return bad


def _codes(model: nn.Module, groups: Groups) -> list[frozenset[str]]:
    """For each group, the classes of the modules whose code gave sizes of it."""
    owner = {unit: i for i, group in enumerate(groups) for unit in group.classes}
    modules = dict(model.named_modules())
    found: list[set[str]] = [set() for _ in groups]
    indices = groups.coupling.indices
    for site in groups.coupling.sites:
        kind = type(modules.get(site.module, model))
        for dim in site.dims:
            for one in set() if dim is None else set(indices.roots(dim).tolist()):
                for leaf in indices.leaves(one):
                    if leaf in owner:
                        found[owner[leaf]].add(f"{kind.__module__}.{kind.__qualname__}")
    return [frozenset(each) for each in found]


def _follows(model: nn.Module, example: Any, groups: Groups, tried: list[Group]) -> bool:
    keep = {}
    for group in tried:
        keep[group.name] = torch.ones(len(group), dtype=torch.bool)
        if len(group) > 1:
            keep[group.name][len(group) // 2] = False
    gone = _gone(groups, keep)
    kept = _kept(groups.coupling, gone)
    reference = masked(model, keep, groups=groups)
    return _cut(model, example, groups.coupling, kept, gone, reference) is not None


def _excluded(model: nn.Module, exclude: Sequence[str]) -> dict[str, str]:
    names = [name for name, _ in model.named_modules() if name]
    found: dict[str, str] = {}
    for glob in exclude:
        hits = fnmatch.filter(names, glob)
        if not hits:
            raise unknown("layer", glob, names)
        found.update(dict.fromkeys(hits, "excluded"))
    return found
