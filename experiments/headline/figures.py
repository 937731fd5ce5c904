"""Figures of docs/bidirectional.md: SVG files with a background of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from regrow.bench.report.scales import (
    depth_of,
    percent_axis,
    signed_tick,
    sparsity_ticks,
)
from regrow.bench.report.svg import arm_colour, colour, draw, marker, panel
from regrow.bench.statistics import Interval

CLIP = 10.0
"""Points from zero at which a forest's scale ends at the latest."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_WIDTH = 860
_TEXT: dict[str, Any] = {
    "xycoords": ("axes fraction", "data"),
    "textcoords": "offset points",
    "va": "center",
    "annotation_clip": False,
}


@dataclass(frozen=True)
class Difference:
    """An arm minus the reference, in points: one value per seed, and their interval."""

    name: str
    group: str
    values: tuple[float, ...]
    interval: Interval


def forest(rows: Sequence[Difference], reference: str, label: str) -> str:
    """Differences to a reference arm with their intervals, by group, the highest mean first.

    The scale ends `CLIP` points from zero at most: what lies beyond has an arrow at the edge, and
    a mean beyond has its number beside the arrow too.

    Args:
        rows: in the order of their groups.
        reference: the arm at zero.
        label: what the figure shows, for readers who do not see it.
    """
    places, heads = _arranged(rows)
    last = max(places.values())
    height = round(23 * (last + 1)) + 84
    low, high = _limits(rows)

    def paint(figure: Figure) -> None:
        axes = panel(figure, 176, 34, _WIDTH - 176 - 190, height - 84)
        axes.set_ylim(last + 0.6, -0.6)
        axes.set_xlim(low, high)
        axes.set_yticks([])
        axes.grid(axis="x")
        axes.axvline(0, color=colour("ink"), linewidth=1.2, zorder=2)
        for group, place in heads.items():
            axes.annotate(group, (0, place), (-164, 0), fontweight="bold", **_TEXT)
        for row in rows:
            _difference(axes, row, places[row.name])
        axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(signed_tick))
        axes.set_xlabel(f"Test accuracy minus {reference}'s, points. Dots: seeds")
        top: dict[str, Any] = {**_TEXT, "color": colour("muted")}
        axes.annotate("mean (95 % interval)", (1, -0.6), (12, 14), **top)
        axes.annotate("Coloured where the interval excludes zero", (0, -0.6), (-164, 14), **top)

    return standalone(draw(paint, _WIDTH, height, label), _WIDTH, height)


def curves(
    series: Mapping[str, Sequence[tuple[float, Interval]]], dense: Interval, label: str
) -> str:
    """Test accuracy against sparsity, on a logarithmic scale of density.

    Args:
        series: by arm, (density, test accuracy in percent) at each target.
        dense: the dense network's accuracy, a dashed line.
        label: what the figure shows.
    """
    height = 420

    def paint(figure: Figure) -> None:
        axes = panel(figure, 56, 34, _WIDTH - 56 - 200, height - 90)
        depths = sorted({round(depth_of(1 - d), 6) for ps in series.values() for d, _ in ps})
        gap = min([b - a for a, b in pairwise(depths)], default=1.0)
        axes.axhline(dense.mean, color=arm_colour(0), linewidth=1.5, linestyle=(0, (5, 3)))
        axes.plot([], [], color=arm_colour(0), linewidth=1.5, linestyle=(0, (5, 3)), label="dense")
        for slot, (name, points) in enumerate(series.items(), start=1):
            # Side by side, so that the intervals do not hide each other.
            shift = 0.5 * gap * ((slot - 0.5) / len(series) - 0.5)
            xs = [depth_of(1 - density) + shift for density, _ in points]
            tint = arm_colour(slot)
            for x, (_, interval) in zip(xs, points, strict=True):
                if interval.low is not None and interval.high is not None:
                    axes.plot([x, x], [interval.low, interval.high], color=tint, linewidth=1.2)
            means = [interval.mean for _, interval in points]
            shape: dict[str, Any] = {"marker": marker(slot), "markersize": 7, "linewidth": 1.5}
            axes.plot(xs, means, color=tint, label=name, **shape)
        low, high = depths[0] - 0.5 * gap, depths[-1] + 0.5 * gap
        axes.set_xlim(low, high)
        axes.margins(y=0.08)
        measured = [1 - 10.0**-depth for depth in depths]
        sparsity_ticks(axes.xaxis, (low, high), _WIDTH - 256, 60, measured)
        percent_axis(axes)
        axes.set_xlabel("Sparsity (spaced by the logarithm of density)")
        axes.set_title("Test accuracy, mean and 95 % interval", loc="left", fontsize=12)
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), frameon=False)

    return standalone(draw(paint, _WIDTH, height, label), _WIDTH, height)


def layer_profile(counts: Sequence[tuple[str, int, int]]) -> str:
    """Weights kept in each layer on a logarithmic scale, before the layer's size.

    Args:
        counts: (layer, weights in all, weights kept), from the input on.
    """
    height = 26 * len(counts) + 80
    most = max(total for _, total, _ in counts)

    def paint(figure: Figure) -> None:
        axes = panel(figure, 150, 30, _WIDTH - 150 - 190, height - 80)
        axes.set_ylim(len(counts) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.set_xlim(1, 1.15 * most)
        axes.set_yticks([])
        axes.grid(axis="x")
        for row, (name, total, kept) in enumerate(counts):
            axes.barh(row, total - 1, 0.62, left=1, color=colour("grid"))
            axes.barh(row, max(kept, 1) - 1, 0.62, left=1, color=colour("regrown"))
            axes.annotate(name, (0, row), (-8, 0), ha="right", **_TEXT)
            words = f"{kept:,} ({_figures(100 * kept / total)} %)"
            axes.annotate(words, (1, row), (12, 0), **_TEXT)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.set_xlabel("Weights of the layer: all (grey) and kept (green), log scale")
        top: dict[str, Any] = {**_TEXT, "color": colour("muted")}
        axes.annotate("kept (density)", (1, -0.5), (12, 12), **top)

    kept, total = sum(k for _, _, k in counts), sum(t for _, t, _ in counts)
    label = f"Weights kept per layer, {kept:,} of {total:,} in all"
    return standalone(draw(paint, _WIDTH, height, label), _WIDTH, height)


def standalone(svg: str, width: int, height: int) -> str:
    """A file of the report's inline SVG, in the light theme's colours on its surface."""
    css = (files("regrow.bench.report") / "page.css").read_text(encoding="utf-8")
    # The first definition is the light theme's.
    tints = dict(reversed(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css)))
    opening, _, body = svg.partition(">")
    head = (
        f'{opening} xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="{_FONT}" stroke-linejoin="round">\n'
        f'<rect width="{width}" height="{height}" rx="6" fill="var(--surface)"/>'
    )
    return re.sub(r"var\(--([\w-]+)\)", lambda found: tints[found[1]], head + body) + "\n"


def _arranged(rows: Sequence[Difference]) -> tuple[dict[str, float], dict[str, float]]:
    """The places of arms and of the groups' headings, in rows from the top."""
    places: dict[str, float] = {}
    heads: dict[str, float] = {}
    now = 0.0
    for group in dict.fromkeys(row.group for row in rows):
        heads[group] = now
        members = [row for row in rows if row.group == group]
        for row in sorted(members, key=lambda row: -row.interval.mean):
            now += 1
            places[row.name] = now
        now += 1.4
    return places, heads


def _limits(rows: Sequence[Difference]) -> tuple[float, float]:
    """A scale that holds what there is within `CLIP` of the arms whose mean is, and zero."""
    ends = [0.0]
    for row in (row for row in rows if abs(row.interval.mean) <= CLIP):
        bounds = (row.interval.low, row.interval.high)
        ends += [value for value in (*row.values, *bounds) if value is not None]
    low, high = max(min(ends), -CLIP), min(max(ends), CLIP)
    edge = 0.04 * max(high - low, 1.0)
    return low - edge, high + edge


def _difference(axes: Axes, row: Difference, place: float) -> None:
    """One arm: its name, mean, interval and seeds, and the numbers."""
    interval, numbers, tint = row.interval, f"{row.interval.mean:+.2f}", colour("muted")
    if interval.includes_zero is False:
        tint = arm_colour(3 if interval.mean > 0 else 2)
    if interval.low is not None and interval.high is not None:
        numbers += f" ({interval.low:+.2f} to {interval.high:+.2f})"
    axes.annotate(row.name, (0, place), (-152, 0), **_TEXT)
    axes.annotate(numbers.replace("-", "−"), (1, place), (12, 0), **_TEXT)
    low, high = axes.get_xlim()
    if not low <= interval.mean <= high:
        below = interval.mean < low
        edge, shape, side = (low, "<", 1) if below else (high, ">", -1)
        axes.plot([edge], [place], shape, color=tint, markersize=10, clip_on=False)
        axes.annotate(
            f"{interval.mean:+.1f}".replace("-", "−"),
            (edge, place),
            (side * 10, 0),
            textcoords="offset points",
            ha="left" if below else "right",
            va="center",
            fontweight="bold",
        )
        return
    if interval.low is not None and interval.high is not None:
        bounds = [max(interval.low, low), min(interval.high, high)]
        axes.plot(bounds, [place, place], color=tint, linewidth=1.8)
        for edge, shape, beyond in (
            (low, "<", interval.low < low),
            (high, ">", interval.high > high),
        ):
            if beyond:
                axes.plot([edge], [place], shape, color=tint, markersize=5, clip_on=False)
        seeds = [value for value in row.values if low <= value <= high]
        dots: dict[str, Any] = {"markersize": 4.5, "alpha": 0.5, "mew": 0}
        axes.plot(seeds, [place + 0.3] * len(seeds), "o", color=tint, **dots)
    edged: dict[str, Any] = {"markersize": 7.5, "mec": colour("surface"), "mew": 1.0}
    axes.plot([interval.mean], [place], "D", color=tint, zorder=4, **edged)


def _figures(percent: float) -> str:
    """A percentage with at least two significant figures, without an exponent."""
    return f"{percent:.1f}" if percent >= 10 else f"{percent:.2f}"
