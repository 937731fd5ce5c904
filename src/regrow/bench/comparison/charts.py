"""The figures of a comparison: accuracy and its differences over sparsity, and over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from regrow.bench.report.scales import depth_of, percent_axis, signed_tick, sparsity_ticks
from regrow.bench.report.svg import arm_colour, colour, draw, marker, panel
from regrow.bench.statistics import Interval

HEIGHT = 380
_POINTS = 10.0  # the largest difference that is drawn
_SIDE = 5.0  # pixels between two arms at one place
_NAMES = 190  # pixels for a legend
_DASHED = (0, (5, 3))


@dataclass(frozen=True)
class Line:
    """An arm: its slot of colour and marker, and means with intervals by place."""

    slot: int
    points: Mapping[float, Interval]


def over_sparsity(
    lines: Sequence[Line],
    dense: Interval | None,
    floor: float,
    width: int,
    label: str,
    names: Sequence[str] = (),
) -> str:
    """Test accuracy in percent over sparsity, on a logarithmic scale of density.

    What is below the floor leaves the figure, so that the rest can be told apart.

    Args:
        lines: the arms.
        dense: the dense network's accuracy.
        floor: in percent.
        width: in pixels.
        label: what the figure shows.
        names: of the arms, for a drawing that stands alone; a page has its own legend.
    """

    def paint(figure: Figure) -> None:
        axes = _axes(figure, lines, width - (_NAMES if names else 0))
        if dense is not None:
            axes.axhline(dense.mean, color=arm_colour(0), linewidth=1.5, linestyle=_DASHED)
        if names:
            marks = [_mark(line.slot, name) for line, name in zip(lines, names, strict=True)]
            if dense is not None:
                dashes = Line2D([], [], color=arm_colour(0), linestyle=_DASHED, label="dense")
                marks.insert(0, dashes)
            axes.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.02, 1.02), frameon=False)
        told = [each for line in lines for each in line.points.values() if each.mean >= floor]
        _within(axes, [*told, *([] if dense is None else [dense])], floor)
        percent_axis(axes)
        figure.text(6 / width, 1 - 14 / HEIGHT, "Test accuracy", color=colour("muted"))

    return draw(paint, width, HEIGHT, label)


def differences(lines: Sequence[Line], control: str, width: int, label: str) -> str:
    """Differences from the control in points over sparsity."""

    def paint(figure: Figure) -> None:
        axes = _axes(figure, lines, width)
        axes.axhline(0, color=colour("muted"), linewidth=1.0)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -_POINTS), min(high, _POINTS))
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(signed_tick))
        words = f"Points of test accuracy above {control}"
        figure.text(6 / width, 1 - 14 / HEIGHT, words, color=colour("muted"))

    return draw(paint, width, HEIGHT, label)


def over_epochs(points: Sequence[tuple[int, float, Interval]], width: int, label: str) -> str:
    """Accuracy over the epochs spent in all: (slot, epochs, accuracy) of each arm."""

    def paint(figure: Figure) -> None:
        axes = panel(figure, 52, 26, width - 66, HEIGHT - 78)
        spent = [epochs for _, epochs, _ in points]
        margin = max(0.1 * (max(spent) - min(spent)), 0.5)
        low, high = min(spent) - margin, max(spent) + margin
        pixel = (high - low) / (width - 66)
        for index, (slot, epochs, each) in enumerate(points):
            # Arms with one budget stand side by side.
            tint, x = arm_colour(slot), epochs + 14 * pixel * (index - (len(points) - 1) / 2)
            if each.low is not None and each.high is not None:
                axes.plot([x, x], [each.low, each.high], color=tint, linewidth=1.5)
            axes.plot([x], [each.mean], marker(slot), color=tint, markersize=8)
        axes.set_xlim(low, high)
        _within(axes, [each for _, _, each in points])
        percent_axis(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("Epochs in all, those of the dense network included")
        figure.text(6 / width, 1 - 14 / HEIGHT, "Test accuracy", color=colour("muted"))

    return draw(paint, width, HEIGHT, label)


def _mark(slot: int, name: str) -> Line2D:
    return Line2D([], [], color=arm_colour(slot), marker=marker(slot), markersize=6, label=name)


def _within(axes: Axes, told: Sequence[Interval], floor: float = 0.0) -> None:
    """Limits by the means, and by their intervals as far as those are not wider than they."""
    means = [each.mean for each in told] or [floor]
    spread = max(max(means) - min(means), 1.0)
    low = min([*means, *(each.low for each in told if each.low is not None)])
    high = max([*means, *(each.high for each in told if each.high is not None)])
    axes.set_ylim(
        max(low, min(means) - spread, floor) - 0.06 * spread,
        min(high, max(means) + spread, 100.0) + 0.06 * spread,
    )


def _axes(figure: Figure, lines: Sequence[Line], width: int) -> Axes:
    """Lines with their intervals; arms at one place stand a little apart."""
    axes = panel(figure, 52, 26, width - 66, HEIGHT - 78)
    places = sorted({depth_of(s) for line in lines for s in line.points})
    gap = (places[-1] - places[0]) or 0.5
    low, high = places[0] - 0.08 * gap, places[-1] + 0.08 * gap
    pixel = (high - low) / (width - 66)
    for index, line in enumerate(lines):
        tint = arm_colour(line.slot)
        shift = _SIDE * pixel * (index - (len(lines) - 1) / 2) * min(1.0, 8 / len(lines))
        xs = [depth_of(s) + shift for s in line.points]
        axes.plot(xs, [each.mean for each in line.points.values()], color=tint, linewidth=1.5)
        for x, each in zip(xs, line.points.values(), strict=True):
            if each.low is not None and each.high is not None:
                axes.plot([x, x], [each.low, each.high], color=tint, linewidth=1.2, alpha=0.7)
            axes.plot([x], [each.mean], marker(line.slot), color=tint, markersize=6)
    axes.set_xlim(low, high)
    axes.margins(y=0.1)
    marks = sorted({s for line in lines for s in line.points})
    sparsity_ticks(axes.xaxis, (low, high), width - 66, 46, _apart(marks, pixel))
    axes.set_xlabel("Sparsity (spaced by the logarithm of density)")
    return axes


def _apart(marks: Sequence[float], pixel: float) -> list[float]:
    """The marks from the greatest on that have room for their labels."""
    chosen: list[float] = []
    for mark in reversed(marks):
        if all(abs(depth_of(mark) - depth_of(other)) / pixel >= 46 for other in chosen):
            chosen.append(mark)
    return chosen
