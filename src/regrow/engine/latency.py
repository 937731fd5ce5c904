"""Measured time as a budget: how long each layer takes at which width, on this machine."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.files import write_atomic
from regrow.core.names import unwrap
from regrow.engine.cut_out import cut_out
from regrow.engine.groups import Groups
from regrow.model.coupling.groups import at_rest, call

_FORMAT, _VERSION = "regrow-latency", 1
_REST = ""


@dataclass(frozen=True)
class LatencyTable:
    """Times of a network's layers at several widths; `choose(..., of=table)` takes it as a budget.

    Attributes:
        layers: by module: fractions of its weight that are kept, ascending, and the seconds that
            it takes with so much. Under "" all that is not in a module with a weight of its own,
            by the fraction of units that is kept.
        threads: of PyTorch, with which it was measured.
    """

    layers: Mapping[str, tuple[tuple[float, float], ...]]
    threads: int

    def seconds(self, groups: Groups, keep: Mapping[str, Tensor]) -> float:
        """The time of one run on the example, with units removed; between widths, a straight line.

        Raises:
            RegrowError: the table is of another network.
        """
        shares = kept_shares(groups, keep)
        if shares.keys() != self.layers.keys():
            name = max(shares.keys() ^ self.layers.keys())
            raise RegrowError(f"the table is of another network: {name!r} is in one of them only.")
        total = 0.0
        for name, points in self.layers.items():
            if not shares[name]:  # it has left
                continue
            widths, seconds = np.array(points).T
            total += float(np.interp(shares[name], widths, seconds))
        return total

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON."""
        data = {"format": _FORMAT, "version": _VERSION, "threads": self.threads}
        layers = {name: [list(point) for point in points] for name, points in self.layers.items()}
        write_atomic(Path(path), json.dumps({**data, "layers": layers}).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """The inverse of `save`.

        Raises:
            RegrowError: the file is missing, damaged or of another kind or version.
        """
        try:
            data = json.loads(Path(path).read_bytes())
            if (data["format"], data["version"]) != (_FORMAT, _VERSION):
                raise RegrowError(f"{path} holds no table of latencies of version {_VERSION}.")
            layers = {
                str(name): tuple((float(share), float(seconds)) for share, seconds in points)
                for name, points in data["layers"].items()
            }
            if not all(layers.values()):
                raise ValueError("a layer has no times")
            return cls(layers, int(data["threads"]))
        except OSError as error:
            raise RegrowError(f"{path} cannot be read: {error.strerror}.") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, RegrowError):
                raise
            raise RegrowError(f"{path} is no table of latencies: {error!r}.") from error


def measure_latency(
    model: nn.Module,
    example: Any,
    groups: Groups,
    *,
    widths: Sequence[float] = (0.125, 0.25, 0.5, 0.75, 1.0),
    threads: int = 1,
    seconds: float = 1.0,
) -> LatencyTable:
    """Time a network's layers on this machine, in networks cut to several widths.

    The networks are whole ones, in PyTorch, in evaluation mode; their runs take turns, and medians
    count. Do nothing else on the machine meanwhile.

    Args:
        model: is left as it was.
        example: as for `groups`; it should be what shall be fast, batch included.
        groups: of this network.
        widths: fractions of the units of every group.
        threads: of PyTorch.
        seconds: for each width.

    Raises:
        RegrowError: a width is no fraction, or the network does not follow a cut.
    """
    if not widths or not all(0 < width <= 1 for width in widths):
        raise RegrowError(f"widths are fractions in (0, 1]; got {tuple(widths)!r}.")
    model = unwrap(model)
    keeps = []
    for width in sorted({*widths, 1.0}):
        kept = {g.name: max(1, round(width * len(g))) for g in groups}
        keeps.append({g.name: torch.arange(len(g)) < kept[g.name] for g in groups})
    networks = []
    for keep in keeps:
        done = cut_out(model, example, groups, keep)
        if done is None:
            raise RegrowError("the network's code does not follow a cut of all groups at once.")
        networks.append(done.model)
    times = _interleaved(networks, example, threads, seconds)
    shares = [kept_shares(groups, keep) for keep in keeps]
    for each in times:  # modules without a share are those whose weight is another one's too
        each[_REST] += sum(each.pop(name) for name in each.keys() - shares[0].keys())
    layers = {}
    for name in shares[0]:
        # A wider layer is never told to be faster, so that a budget has one answer.
        taken = np.maximum.accumulate([each.get(name, 0.0) for each in times])
        points = {share[name]: float(t) for share, t in zip(shares, taken, strict=True)}
        layers[name] = tuple(sorted(points.items()))
    return LatencyTable(layers, threads)


def kept_shares(groups: Groups, keep: Mapping[str, Tensor]) -> dict[str, float]:
    """What is kept of the weight of each module, and of all units."""
    kept = groups.kept(groups.gone(keep))
    shares: dict[str, float] = {}
    for name, shape in groups.coupling.trained.items():
        share = 1.0
        for dim, indices in kept.get(name, {}).items():
            share *= len(indices) / shape[dim]
        path = name.rpartition(".")[0]
        if path:
            shares.setdefault(path, share)  # its first parameter, which is the weight
    units = sum(len(group) for group in groups)
    live = sum(int(keep[g.name].sum()) if g.name in keep else len(g) for g in groups)
    return {**shares, _REST: live / units}


def _interleaved(
    networks: Sequence[nn.Module], example: Any, threads: int, seconds: float
) -> list[dict[str, float]]:
    """Of each network: median seconds of the modules with parameters, and of all the rest."""
    before = torch.get_num_threads()
    runs: list[list[dict[str, float]]] = [[] for _ in networks]
    torch.set_num_threads(threads)
    try:
        with ExitStack() as stack:
            for network in networks:
                stack.enter_context(at_rest(network))
            watched = [stack.enter_context(_watched(network)) for network in networks]
            end = time.perf_counter() + seconds * len(networks)
            while time.perf_counter() < end or len(runs[0]) < 5:
                for network, spent, told in zip(networks, watched, runs, strict=True):
                    spent.clear()
                    start = time.perf_counter()
                    call(network, example)
                    whole = time.perf_counter() - start
                    told.append({**spent, _REST: whole - sum(spent.values())})
    finally:
        torch.set_num_threads(before)
    names = [dict.fromkeys(name for run in told for name in run) for told in runs]
    return [
        {name: statistics.median(run.get(name, 0.0) for run in told[1:]) for name in each}
        for told, each in zip(runs, names, strict=True)
    ]


@contextmanager
def _watched(network: nn.Module) -> Iterator[dict[str, float]]:
    """Adds up the time in modules that hold parameters themselves, without others inside them."""
    spent: dict[str, float] = {}
    inside: list[list[float]] = []  # when it began, and the time of those inside it

    def enter(*_: Any) -> None:
        inside.append([time.perf_counter(), 0.0])

    def leave(path: str) -> Any:
        def left(*_: Any) -> None:
            start, others = inside.pop()
            taken = time.perf_counter() - start
            spent[path] = spent.get(path, 0.0) + taken - others
            if inside:
                inside[-1][1] += taken

        return left

    with ExitStack() as stack:
        for path, module in network.named_modules():
            if path and any(True for _ in module.parameters(recurse=False)):
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave(path)).remove)
        yield spent
