"""Units that have their indices in the same dimensions of the same tensors, as groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from regrow.core.groups import Group, Member
from regrow.model.coupling.indices import Classes, Dim
from regrow.model.coupling.tracer import Tracer


def one_factor(tracer: Tracer, names: set[str]) -> None:
    """Where an index goes with either of two factors, the more numerous ones are the units."""
    looked: set[int] = set()  # at arrays
    for name, dims in tracer.parameters.items():
        for dim in dims if name in names else ():
            shared = None if dim is None else tracer.indices.shared(dim)
            if dim is None or id(shared) in looked:
                continue
            looked.add(id(shared))
            if tracer.indices.simple(dim):
                continue
            going = tracer.indices.going(dim)
            counts = np.bincount(going[:, 1])[going[:, 1]]
            for count in np.unique(counts[counts > 1]).tolist():
                columns = going[counts == count, 0].reshape(-1, count).T
                sizes = [len(np.unique(column)) for column in columns]
                for i, column in enumerate(columns):
                    if i != sizes.index(max(sizes)):
                        tracer.indices.fix(column, "another division of the same channels")


@dataclass
class _Shared:
    """Dimensions of tensors that are equal as wholes."""

    dim: Classes
    places: list[int] = field(default_factory=list)


def units_of(tracer: Tracer, names: set[str]) -> tuple[Group, ...]:
    """The groups of a network.

    Args:
        tracer: after the run.
        names: of the parameters; a group without any is none.
    """
    places = [
        (name, axis)
        for name, dims in tracer.parameters.items()
        for axis, dim in enumerate(dims)
        if dim is not None
    ]
    shared: dict[int, _Shared] = {}
    for i, (name, axis) in enumerate(places):
        dim = tracer.indices.shared(_known(tracer.parameters[name][axis]))
        shared.setdefault(id(dim), _Shared(dim)).places.append(i)
    found, used, wholes = [], Counter[str](), list(shared.values())
    alike = _alike([tracer.indices.going(each.dim) for each in wholes], tracer.indices.count)
    for stacked in sorted(alike, key=lambda each: [*each[0, 0, 1:], each[0, 0, 0]]):
        units, first = len(stacked), stacked[0, :, 1]
        at: dict[int, torch.Tensor] = {}
        for number in dict.fromkeys(first.tolist()):
            whole = stacked[:, :, 2] if stacked.shape[1] == 1 else stacked[:, first == number, 2]
            indices = torch.from_numpy(whole.copy())
            at.update(dict.fromkeys(wholes[number].places, indices))
        where = [places[i] for i in sorted(at)]
        if not any(name in names for name, _ in where):
            continue
        members = []
        for i in sorted(at):
            name, axis = places[i]
            produces = axis == (1 if name in tracer.turned else 0)
            members.append(Member(name, axis, at[i], produces))
        if units == 1 and any(_all(tracer, member) for member in members):
            continue  # removing it would leave nothing
        layer = _title([m.name for m in members if m.produces and m.name in names] or [where[0][0]])
        used[layer] += 1
        title = layer if used[layer] == 1 else f"{layer}#{used[layer]}"
        found.append(Group(title, tuple(members), tuple(stacked[:, 0, 0].tolist())))
    return tuple(found)


def _alike(going: list[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Units of the same dimensions, as rows of (unit, number of the dimension, index).

    Args:
        going: rows of (unit, index) of each dimension.
        count: of all classes.

    Yields:
        (units, rows of each unit, 3); units ascend, and the rows of each by dimension and index.
    """
    every = [pairs[:, 0] for pairs in going] or [np.empty(0, np.int64)]
    times = np.bincount(np.concatenate(every), minlength=count)
    rest = [np.empty((0, 3), np.int64)]
    for number, pairs in enumerate(going):
        if not len(pairs):
            continue
        rows = np.full((len(pairs), 3), number)
        rows[:, ::2] = pairs
        if not np.count_nonzero(times[pairs[:, 0]] != 1):
            yield rows[np.argsort(pairs[:, 0]), None]
        else:
            rest.append(rows)
    table = np.concatenate(rest)
    table = table[np.argsort(table[:, 0], kind="stable")]
    starts = np.flatnonzero(np.diff(table[:, 0], prepend=-1))
    lengths = np.diff(starts, append=len(table))
    for length in np.unique(lengths):
        rows = table[starts[lengths == length][:, None] + np.arange(length)]
        kinds = np.zeros(len(rows), np.int64)
        for column in rows[:, :, 1].T:
            _, kinds = np.unique(kinds * len(going) + column, return_inverse=True)
        for kind in range(kinds.max() + 1):
            yield rows[kinds == kind]


def _all(tracer: Tracer, member: Member) -> bool:
    return member.indices.shape[1] == len(_known(tracer.parameters[member.name][member.dim]))


def _title(names: list[str]) -> str:
    return names[0].rpartition(".")[0] or names[0]


def _known(dim: Dim) -> Classes:
    assert dim is not None
    return dim
