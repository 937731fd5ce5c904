"""From recorded events and epochs to what the figures draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from regrow.bench.report.compare import Cell
from regrow.bench.report.plots import Course, Flow
from regrow.bench.report.records import Arm


@dataclass(frozen=True)
class LayerStory:
    """One layer of one arm, counts being means over seeds.

    `flow` holds the counts before any cut, at the lowest point and at the end; `pruned` and
    `regrown` sum over all events.
    """

    flow: Flow
    shape: tuple[int, ...]
    pruned: float
    regrown: float


def layer_stories(cell: Cell) -> list[LayerStory]:
    """Where the weights went and came back, layer by layer; empty without recorded events.

    The lowest point is the last event after which the fewest weights were left in the whole
    network, so that of several rounds the last regrowth is told.
    """
    seeds = [found for arm in cell.by_seed.values() if (found := _stories(arm))]
    return [_mean([each[name] for each in seeds]) for name in (seeds[0] if seeds else ())]


def kept_totals(cell: Cell) -> tuple[float, float]:
    """Weights kept in the whole network at the lowest point and at the end, means over seeds.

    The events' own totals: the record counts so too, layers outside the events included.
    """
    told = [events for arm in cell.by_seed.values() if (events := _told(arm))]
    return (
        fmean(float(_lowest(events)["kept"]) for events in told),
        fmean(float(events[-1]["kept"]) for events in told),
    )


def course(cell: Cell, slot: int) -> Course | None:
    """One arm over the epochs; None without a recorded history.

    An arm that starts from the dense checkpoint counts its own epochs from one; the epochs of its
    record that its history lacks are put before it, so all arms share one axis.
    """
    arms = [arm for arm in cell.by_seed.values() if arm.course]
    if not arms:
        return None
    sparsity: dict[int, list[float]] = {}
    accuracy: dict[int, list[float]] = {}
    events: dict[tuple[float, float, str], None] = {}
    for arm in arms:
        first = _offset(arm)
        for row in arm.course:
            sparsity.setdefault(first + int(row["epoch"]), []).append(float(row["sparsity"]))
            if row.get("validation_accuracy") is not None:
                value = 100 * float(row["validation_accuracy"])
                accuracy.setdefault(first + int(row["epoch"]), []).append(value)
        for event in arm.events:
            reached = round(float(event["sparsity"]), 4)
            events[(first + float(event["epoch"]), reached, str(event["kind"]))] = None
    steps = [(float(epoch), fmean(sparsity[epoch])) for epoch in sorted(sparsity)]
    return Course(
        slot=slot,
        sparsity=((min(sparsity) - 1.0, 0.0), *steps),
        accuracy=tuple(
            (float(epoch), fmean(values), min(values), max(values))
            for epoch, values in sorted(accuracy.items())
            if len(values) == len(arms)
        ),
        events=tuple(events),
    )


def _offset(arm: Arm) -> int:
    return max(0, arm.epochs.total - max(int(row["epoch"]) for row in arm.course))


def _told(arm: Arm) -> list[Mapping[str, Any]]:
    return [event for event in arm.events if event.get("layers")]


def _lowest(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return min(reversed(events), key=lambda event: int(event["kept"]))


def _stories(arm: Arm) -> dict[str, LayerStory]:
    events = _told(arm)
    if not events:
        return {}
    first, cut, final = (
        {layer["name"]: layer for layer in event["layers"]}
        for event in (events[0], _lowest(events), events[-1])
    )
    everything = [layer for event in events for layer in event["layers"]]
    return {
        name: LayerStory(
            flow=Flow(
                name=str(name),
                total=int(layer["total"]),
                before=float(layer["kept_before"]),
                cut=float(cut[name]["kept"]),
                final=float(final[name]["kept"]),
            ),
            shape=tuple(int(extent) for extent in layer["shape"]),
            pruned=float(sum(int(x["pruned"]) for x in everything if x["name"] == name)),
            regrown=float(sum(int(x["regrown"]) for x in everything if x["name"] == name)),
        )
        for name, layer in first.items()
    }


def _mean(stories: Iterable[LayerStory]) -> LayerStory:
    same = list(stories)
    flows = [story.flow for story in same]
    return LayerStory(
        flow=Flow(
            name=flows[0].name,
            total=flows[0].total,
            before=fmean(flow.before for flow in flows),
            cut=fmean(flow.cut for flow in flows),
            final=fmean(flow.final for flow in flows),
        ),
        shape=same[0].shape,
        pruned=fmean(story.pruned for story in same),
        regrown=fmean(story.regrown for story in same),
    )
