"""Groups that can be cut, found by a trial, and networks without some of their units."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from regrow.core.errors import RegrowError, unknown
from regrow.core.groups import Group
from regrow.core.names import unwrap
from regrow.core.rng import generator
from regrow.engine.cut import Shrunk, cut_out, outputs_of
from regrow.engine.groups import Groups
from regrow.model.coupling.groups import Bound, couple


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
    bad = _culprits(*_random(model, example), found)
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


def _random(model: nn.Module, example: Any) -> tuple[nn.Module, Any]:
    """A network of the same form, and an example, of random numbers.

    What they show does not depend on layers that start at zero, or on an example of zeros. Code may
    not take any numbers: where the result is not finite, they are as they were.
    """
    made, source = copy.deepcopy(model), generator("trial")
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.is_floating_point():
                noise = torch.rand(parameter.shape, generator=source) + 0.5
                if parameter.dim() > 1:
                    fan = parameter.numel() / len(parameter)
                    noise = torch.randn(parameter.shape, generator=source) / fan**0.5
                parameter.copy_(noise)
        for name, buffer in made.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape, generator=source) + 0.5)

    def drawn(x: Any) -> Any:
        if isinstance(x, Tensor) and x.is_floating_point():
            return torch.randn(x.shape, generator=source).to(x)
        return x

    inputs = tree_map(drawn, example)
    try:
        sound = all(bool(torch.isfinite(each).all()) for each in outputs_of(made, inputs))
    except Exception:  # code may refuse numbers that it does not expect
        sound = False
    return (made, inputs) if sound else (model, example)


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
    return cut_out(model, example, groups, keep) is not None


def _excluded(model: nn.Module, exclude: Sequence[str]) -> dict[str, str]:
    names = [name for name, _ in model.named_modules() if name]
    found: dict[str, str] = {}
    for glob in exclude:
        hits = fnmatch.filter(names, glob)
        if not hits:
            raise unknown("layer", glob, names)
        found.update(dict.fromkeys(hits, "excluded"))
    return found
