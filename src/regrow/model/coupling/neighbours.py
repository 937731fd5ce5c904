"""The weights before and behind each weight, from one watched run of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from regrow.core.errors import RegrowError
from regrow.core.names import unwrap
from regrow.core.neighbours import Link, Neighbours, Place
from regrow.model.coupling.flow import Flow, Origin
from regrow.model.coupling.groups import refuse_recurrent, watch
from regrow.model.coupling.indices import Classes, Dim, Indices
from regrow.model.coupling.nests import tensors_of
from regrow.model.coupling.tracer import Tracer
from regrow.model.inventory import Entry


def neighbours(
    model: nn.Module, example: Any, entries: Collection[Entry], scope: Collection[str]
) -> Neighbours:
    """Run a network once and find which outputs of which weight each weight reads.

    Args:
        model: runs in evaluation mode, without gradients; it is given back as it was.
        example: a tensor, a tuple of positional or a dictionary of keyword arguments.
        entries: of the network's inventory.
        scope: names of those whose neighbours must be known.

    Raises:
        RegrowError: `watch` refuses; or a weight of the scope is not used for the example, or has
            no defined neighbours, since what lies between mixes, scales or normalises channels.
    """
    model = unwrap(model)
    refuse_recurrent(model)
    tracer, flow = Tracer(), Flow()
    tracer.add_state(model)
    tracer.add_example(example)
    outputs = watch(model, example, tracer, flow)
    maps = _Maps(tracer.indices, flow)
    missing: dict[str, str] = {}
    links = list(_links(maps, flow, missing))
    read = {link.producer for link in links}
    streams = [flow.stream(tracer, each) for each in tensors_of(outputs)]
    for origin in dict.fromkeys(o for stream in streams if stream for o in stream.origins):
        if origin.use is not None and origin.use not in read and origin.norms:
            with contextlib.suppress(_Undefined):  # nothing reads it, so nothing need be known
                links.append(maps.link(origin, None))
    names = {tracer.tied.get(entry.name, entry.name): entry.name for entry in entries}
    used = {use.place.weight for use in flow.uses}
    for canonical, name in names.items():
        if canonical not in used:
            missing.setdefault(canonical, "it is not used as a layer's weight for the example")
        if canonical in missing and name in scope:
            raise RegrowError(
                f"the neighbours of {name} are not defined: {missing[canonical]}. Exclude "
                "such layers, or choose a criterion that needs no neighbours."
            )
    places = [
        Place(names.get(use.place.weight, use.place.weight), use.place.groups, use.place.turned)
        for use in flow.uses
    ]
    return Neighbours(tuple(places), tuple(each.norm for each in flow.norms), tuple(links))


class _Undefined(Exception):
    """Why a way between two weights has no reading."""


def _links(maps: _Maps, flow: Flow, missing: dict[str, str]) -> Iterator[Link]:
    """Those between weights; weights whose neighbours have no reading are noted with the reason."""
    for number, use in enumerate(flow.uses):
        found: list[Link] = []
        for origin in use.origins:
            if origin.use is None:
                if origin.undefined is not None:
                    way = f"before {use.place.weight}, {origin.undefined}"
                    missing.setdefault(use.place.weight, way)
                continue
            try:
                found.append(maps.link(origin, number))
                _check_single(found)
            except _Undefined as error:
                before = flow.uses[origin.use].place.weight
                way = f"between {before} and {use.place.weight}, {error}"
                for name in (before, use.place.weight):
                    missing.setdefault(name, way)
        yield from found


def _check_single(links: Sequence[Link]) -> None:
    """What arrives without a sum arrives from one place."""
    met = torch.stack([link.source >= 0 for link in links])
    alone = torch.tensor([not link.joins for link in links])
    if ((met.sum(0) > 1) & met[alone].any(0)).any():
        raise _Undefined("channels of one number come from several layers")


@dataclass(frozen=True)
class _Maps:
    """Index maps from the equations at the end of the run."""

    indices: Indices
    flow: Flow

    def link(self, origin: Origin, consumer: int | None) -> Link:
        """The link of a way to a place, or to an output of the network.

        Raises:
            _Undefined: indices cannot be told.
        """
        assert origin.use is not None
        if origin.undefined is not None:
            raise _Undefined(origin.undefined)
        before = self.flow.uses[origin.use]
        computed = self.roots(before.outputs, before.sizes[1])
        read = computed
        if consumer is not None:
            after = self.flow.uses[consumer]
            read = self.roots(after.inputs, after.sizes[0])
        source = _places(read, computed)
        if not (source >= 0).any():
            raise _Undefined("no channel of the one is a channel of the other")
        norms = []
        for number in origin.norms:
            channels = self.flow.norms[number]
            own = self.roots(channels.dim, channels.size)
            if len(own) == len(read) and (own == read).all():
                index = np.arange(len(read))
            else:
                index = _places(read, own)
            if (index[source >= 0] < 0).any():
                raise _Undefined(f"channels of {channels.norm.variance} are others")
            norms.append((number, torch.from_numpy(index)))
        return Link(
            origin.use,
            consumer,
            torch.from_numpy(source),
            tuple(norms),
            origin.joins,
            origin.identity,
        )

    def roots(self, dim: Dim, size: int) -> Classes:
        """What stands for each index of a dimension; of a single index nothing need be known.

        Raises:
            _Undefined: the indices are fixed, so that nothing tells them apart.
        """
        if size == 1:
            return np.full(1, -1)
        if dim is None:
            raise _Undefined("channels become entries of the code or the example")
        roots = self.indices.roots(dim)
        for one in np.unique(roots).tolist():
            if self.indices.factors(one):
                continue
            reason = self.indices.reason(one)
            if reason is not None:
                raise _Undefined(f"channels are fixed: {reason}")
        return roots


def _places(wanted: Classes, among: Classes) -> Classes:
    """Where each class stands in a list of different ones; -1 for nowhere.

    Raises:
        _Undefined: one stands there twice.
    """
    order = np.argsort(among, kind="stable")
    ranked = among[order]
    if (ranked[1:] == ranked[:-1]).any():
        raise _Undefined("several channels of one layer go together")
    at = np.searchsorted(ranked, wanted).clip(max=len(ranked) - 1)
    return np.where(ranked[at] == wanted, order[at], -1)
