"""Groups that can be cut, found by a trial, and networks without some of their units."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.allocator import give_back
from regrow.core.errors import RegrowError, unknown
from regrow.core.groups import Group
from regrow.core.names import unwrap
from regrow.engine.cut import Shrunk
from regrow.engine.cut_out import cut_out
from regrow.engine.groups import Groups
from regrow.engine.trial import Trial
from regrow.model.coupling.groups import Bound, couple

_CODE = "the code does not follow a cut"


def find_groups(model: nn.Module, example: Any, *, exclude: Sequence[str] = ()) -> Groups:
    """What can be removed from a network, unit by unit, and what cannot.

    One unit of every group is removed for a trial: groups whose code does not follow a cut are
    found so, and count as bound. Then whole groups are, those without which all outputs still
    depend on the example, such as the inside of a residual branch: at first in the network without
    those units, and, should that fail, each kind of them in the whole network.

    Args:
        model: is left as it was.
        example: a tensor, a tuple of positional or a dictionary of keyword arguments.
        exclude: layers, by glob, whose outputs shall stay.

    Raises:
        RegrowError: see `couple`; a glob matches no layer.
    """
    model = unwrap(model)
    trial = Trial(model, example)
    coupling = couple(model, example, _excluded(model, exclude))
    give_back()
    found = Groups(coupling, coupling.groups, coupling.bound)
    bad = _culprits(trial, found, _but_one)
    if bad:
        more = [Bound(group.name, len(group), _CODE) for group in bad]
        left = [g for g in found if g not in bad]
        found = Groups(coupling, left, [*coupling.bound, *more], found.needed)
    free = [group for group in found if group.name not in found.needed]
    stay: dict[str, str] = {}
    if bad or not free or not trial.lets_go(found, _but_one(found), free):
        tried = Groups(coupling, free, (), found.needed)
        stay = {group.name: _CODE for group in _culprits(trial, tried, _none)}
    del trial
    give_back()
    return Groups(coupling, tuple(found), found.bound, {**found.needed, **stay})


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
        example: as for `find_groups`.
        keep: for names of groups, which units stay: boolean, one for each unit, as of `choose`. Or
            keep masks by weight, as of `Pruning.masks`: units go of which nothing is kept.
        groups: of this network, if they are known already.

    Returns:
        a network that computes what `masked` does, to rounding, checked on the example.

    Raises:
        RegrowError: a group would be emptied, or keep does not fit the groups; the network's code
            does not follow the cut.
    """
    model = unwrap(model)
    found = find_groups(model, example) if groups is None else groups
    names = {group.name for group in found}
    if keep.keys() & found.coupling.trained.keys() and not keep.keys() <= names:
        keep = found.units(keep)
    done = cut_out(model, example, found, keep)
    if done is None:
        raise RegrowError(
            "the network without these units does not compute what it does with zeros in their "
            "place, so its code does not follow the cut; remove fewer groups at once to find which."
        )
    return done


def _culprits(
    trial: Trial, groups: Groups, without: Callable[[Sequence[Group]], dict[str, Tensor]]
) -> list[Group]:
    """Groups of which a part cannot go, because code gives their sizes in its own way.

    Those whose sizes are given by modules of the same classes are tried together, if they are
    inside modules of one class.
    """
    if not groups or trial.follows(groups, without(groups)):
        return []
    alike: dict[object, list[Group]] = {}
    for group, key in zip(groups, _codes(trial.model, groups), strict=True):
        alike.setdefault(key, []).append(group)
    bad: list[Group] = []
    for tried in alike.values():
        if not trial.follows(groups, without(tried)):
            bad += tried
    return bad


def _codes(model: nn.Module, groups: Groups) -> list[tuple[frozenset[str], str]]:
    """For each group, the classes of the modules whose code gave sizes of it, and of its owner."""
    owner = {unit: i for i, group in enumerate(groups) for unit in group.classes}
    modules = dict(model.named_modules())
    found: list[set[str]] = [set() for _ in groups]
    indices = groups.coupling.indices
    for site in groups.coupling.sites:
        kind = type(modules.get(site.module, model))
        for dim in site.dims:
            units = set() if dim is None else set(indices.going(dim)[:, 0].tolist())
            for group in {owner[unit] for unit in units & owner.keys()}:
                found[group].add(f"{kind.__module__}.{kind.__qualname__}")
    owners = (modules.get(group.name.rpartition(".")[0], model) for group in groups)
    return [
        (frozenset(each), type(owned).__qualname__)
        for each, owned in zip(found, owners, strict=True)
    ]


def _but_one(groups: Sequence[Group]) -> dict[str, Tensor]:
    """One unit of each group goes, of those that have several."""
    keep = {}
    for group in groups:
        keep[group.name] = torch.ones(len(group), dtype=torch.bool)
        if len(group) > 1:
            keep[group.name][len(group) // 2] = False
    return keep


def _none(groups: Sequence[Group]) -> dict[str, Tensor]:
    """Every unit of each group goes."""
    return {group.name: torch.zeros(len(group), dtype=torch.bool) for group in groups}


def _excluded(model: nn.Module, exclude: Sequence[str]) -> dict[str, str]:
    names = [name for name, _ in model.named_modules() if name]
    found: dict[str, str] = {}
    for glob in exclude:
        hits = fnmatch.filter(names, glob)
        if not hits:
            raise unknown("layer", glob, names)
        found.update(dict.fromkeys(hits, "excluded"))
    return found
