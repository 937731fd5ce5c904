"""The figures with axes of their own: accuracy, layers and the course of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from regrow.bench.report.scales import (
    BESIDE,
    ROW,
    depth_of,
    distinct,
    dot,
    label_rows,
    panel_title,
    percent_axis,
    sparsity_of,
    sparsity_ticks,
)
from regrow.bench.report.svg import arm_colour, colour, draw, marker, panel
from regrow.bench.statistics import Interval

EVENT_MARKERS = {"prune": "^", "regrow": "v", "exchange": "D"}

MOST_DOTTED = 6
"""Dotted lines mark the events of arms with at most so many; more would hide the curves."""

BANDED = (1, 2)
"""The slots drawn with a band from least to greatest: the main arm and the control."""


@dataclass(frozen=True)
class Point:
    """One arm at one sparsity: a value per seed, in percent, and their interval."""

    sparsity: float
    values: tuple[float, ...]
    interval: Interval


@dataclass(frozen=True)
class Series:
    """An arm's points; `slot` gives its colour and marker."""

    slot: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Flow:
    """Weights kept in one layer: before any cut, at the lowest point, and at the end."""

    name: str
    total: int
    before: float
    cut: float
    final: float


@dataclass(frozen=True)
class Course:
    """One arm over the epochs, a mean over seeds with the least and the greatest value.

    `accuracy` rows are (epoch, mean, least, greatest) in percent; `events` are (epoch, sparsity
    reached, kind).
    """

    slot: int
    sparsity: tuple[tuple[float, float], ...]
    accuracy: tuple[tuple[float, float, float, float], ...]
    events: tuple[tuple[float, float, str], ...]


def accuracy_chart(series: Sequence[Series], dense: Interval, width: int, label: str) -> str:
    """Test accuracy against sparsity, on a logarithmic scale of density."""
    height = 360

    def paint(figure: Figure) -> None:
        axes = panel(figure, 52, 26, width - 66, height - 78)
        places = [depth_of(point.sparsity) for one in series for point in one.points]
        low = min([depth_of(0.9), *(place - 0.12 for place in places)])
        high = max([depth_of(0.99), *(place + 0.12 for place in places)])
        pixel = (high - low) / (width - 66)
        levels = distinct(places, 12 * pixel)

        def beside(point: Point) -> int:
            return min(range(len(levels)), key=lambda i: abs(levels[i] - depth_of(point.sparsity)))

        # Only arms of one band stand side by side, so an arm alone in its band is not shifted.
        members: list[list[int]] = [[] for _ in levels]
        for index, one in enumerate(series):
            for band in dict.fromkeys(beside(point) for point in one.points):
                members[band].append(index)
        most = max(len(band) for band in members)
        gaps = [b - a for a, b in pairwise(levels)]
        room = min(gaps, default=0.5 * (high - low)) / (most + 1)
        dodge = min(max(room, 8 * pixel), 30 * pixel)
        reach = dodge * (most + 0.4) / 2
        for place, group in zip(levels, members, strict=True):
            half = dodge * (len(group) + 0.4) / 2
            axes.axvspan(place - half, place + half, color=colour("grid"), alpha=0.45, zorder=0)
        axes.axhline(dense.mean, color=arm_colour(0), linewidth=1.5, linestyle=(0, (5, 3)))
        for index, one in enumerate(series):
            tint = arm_colour(one.slot)
            xs = []
            for point in one.points:
                group = members[beside(point)]
                shift = dodge * (group.index(index) - (len(group) - 1) / 2)
                xs.append(depth_of(point.sparsity) + shift)
            axes.plot(xs, [p.interval.mean for p in one.points], color=tint, linewidth=1.5)
            for x, point in zip(xs, one.points, strict=True):
                if point.interval.low is not None and point.interval.high is not None:
                    bounds = [point.interval.low, point.interval.high]
                    axes.plot([x, x], bounds, color=tint, linewidth=1.5)
                # A seed that is the mean itself needs no dot beside it.
                seeds = point.values if len(point.values) > 1 else ()
                spots = [x - min(dodge / 3, 9 * pixel)] * len(seeds)
                axes.plot(spots, seeds, "o", color=tint, markersize=3.5, alpha=0.55, mew=0)
                axes.plot([x], [point.interval.mean], marker(one.slot), **dot(tint))
        axes.set_xlim(low, high)
        axes.margins(y=0.12)
        marks = [sparsity_of(place) for place in levels]
        sparsity_ticks(axes.xaxis, (low, high), width - 66, max(46, reach / pixel + 16), marks)
        percent_axis(axes)
        axes.set_xlabel("Sparsity (spaced by the logarithm of density)")
        figure.text(6 / width, 1 - 14 / height, "Test accuracy", color=colour("muted"))

    return draw(paint, width, height, label)


def layers_chart(flows: Sequence[Flow], returns: bool, width: int, label: str) -> str:
    """Per layer: the connections at the end and the density they reach.

    With `returns`, connections are split into survived and regrown, and arrows start at the cut.
    """
    wide = width >= 640
    body = len(flows) * ROW
    height = body + 76 if wide else 2 * (body + 76)
    half = width * 0.54 if wide else float(width)

    def paint(figure: Figure) -> None:
        counts = panel(figure, 14, 26, half - 28, body)
        top = max(max(flow.final for flow in flows), 1.0)
        for row, flow in enumerate(flows):
            survived = min(flow.cut, flow.final)
            counts.barh(row, survived, 0.36, color=colour("survived"))
            counts.barh(row, flow.final - survived, 0.36, left=survived, color=colour("regrown"))
            share = (flow.final - survived) / flow.final if flow.final else 0.0
            words = f"{100 * share:.0f} % regrown" if returns else f"{flow.final:,.0f}"
            counts.annotate(words, (flow.final, row), (6, 0), **BESIDE)
        counts.set_xlim(0, top * (1.28 if wide else 1.42))
        label_rows(counts, [flow.name for flow in flows], half)
        counts.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        counts.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        counts.grid(axis="x")
        counts.set_xlabel("Connections kept at the end")
        panel_title(counts, "Connections, survived and regrown" if returns else "Connections")

        left = half + 14 if wide else 14.0
        room = width - left - 14
        depth = panel(figure, left, 26 if wide else body + 102, room, body)
        for row, flow in enumerate(flows):
            start = flow.cut if returns else flow.final
            first, last = (max(value, 0.5) / flow.total for value in (start, flow.final))
            tint = colour("regrown" if last > first else "survived")
            depth.plot([first, last], [row, row], color=tint)
            depth.plot([first], [row], "o", **dot(colour("survived")))
            depth.plot([last], [row], ">" if last > first else "o", **dot(tint))
        depth.set_xscale("log")
        smallest = min(max(min(f.cut, f.final), 0.5) / f.total for f in flows)
        depth.set_xlim(min(smallest / 1.5, 0.5), 1.15)
        label_rows(depth, ["" if wide else flow.name for flow in flows], room)
        depth.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
        depth.xaxis.set_minor_locator(MaxNLocator(1))
        depth.grid(axis="x")
        depth.minorticks_off()
        depth.set_xlabel("Weights of the layer kept (log scale)")
        when = "after the cut and at the end" if returns else "at the end"
        panel_title(depth, f"Density of the layer, {when}")

    return draw(paint, width, int(height), label)


def course_chart(courses: Sequence[Course], width: int, label: str) -> str:
    """Sparsity above, validation accuracy below, over a common axis of epochs."""
    height = 470

    def paint(figure: Figure) -> None:
        upper = panel(figure, 52, 28, width - 66, 150)
        lower = panel(figure, 52, 222, width - 66, 190)
        deepest = max([depth_of(0.9), *(depth_of(s) for c in courses for _, s in c.sparsity)])
        # The main arm comes last, on top of all others.
        for z, course in enumerate(sorted(courses, key=_rank), start=3):
            tint = arm_colour(course.slot)
            epochs = [epoch for epoch, _ in course.sparsity]
            depths = [depth_of(sparsity) for _, sparsity in course.sparsity]
            upper.plot(epochs, depths, color=tint, drawstyle="steps-pre", zorder=z, **_dash(course))
            for epoch, reached, kind in course.events:
                shape = EVENT_MARKERS.get(kind, "o")
                upper.plot([epoch], [depth_of(reached)], shape, zorder=20, **dot(tint))
                if len(course.events) <= MOST_DOTTED:
                    dotted: dict[str, Any] = {"linestyle": (0, (2, 3)), "linewidth": 1.0}
                    lower.axvline(epoch, color=tint, alpha=0.8, **dotted)
            if course.accuracy:
                at_epochs, mean, least, most = zip(*course.accuracy, strict=True)
                if course.slot in BANDED:
                    lower.fill_between(at_epochs, least, most, color=tint, alpha=0.16, linewidth=0)
                lower.plot(at_epochs, mean, color=tint, zorder=z, **_dash(course))
        last = max((epoch for c in courses for epoch, _ in c.sparsity), default=1.0)
        for axes in (upper, lower):
            axes.set_xlim(-0.01 * last, last * 1.02)
            axes.xaxis.set_major_locator(MaxNLocator(max(4, width // 90), integer=True))
        upper.set_ylim(-0.05 * deepest, deepest * 1.12)
        sparsity_ticks(upper.yaxis, (-0.01, deepest * 1.12), 150, 17)
        upper.tick_params(labelbottom=False)
        upper.grid(axis="y")
        late = [mean for c in courses for _, mean, _, _ in c.accuracy[len(c.accuracy) // 2 :]]
        if late:
            bottom = min(late) - max(max(late) - min(late), 2.0)
            lower.set_ylim(bottom=max(bottom, lower.get_ylim()[0]))
        percent_axis(lower)
        lower.set_xlabel("Epoch, the dense training included")
        panel_title(upper, "Sparsity", -46)
        panel_title(lower, "Validation accuracy", -46)

    return draw(paint, width, height, label)


def _rank(course: Course) -> tuple[bool, int]:
    """The order of drawing: late slots first, the main arm last."""
    return course.slot == 1, -course.slot


def _dash(course: Course) -> dict[str, Any]:
    return {"linestyle": (0, (5, 3)), "linewidth": 1.5} if course.slot == 0 else {}
