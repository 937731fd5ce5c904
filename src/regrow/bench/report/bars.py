"""The figures with one labelled row for each arm: differences, budgets, bytes and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from regrow.bench.report import text
from regrow.bench.report.scales import BESIDE, ROW, dot, label_rows, signed_tick
from regrow.bench.report.svg import PHASE_COLOURS, arm_colour, colour, draw, marker, panel
from regrow.bench.statistics import Interval


@dataclass(frozen=True)
class Effect:
    """A labelled difference in percentage points."""

    label: str
    slot: int
    interval: Interval


def effect_chart(effects: Sequence[Effect], width: int, label: str) -> str:
    """Differences to the control with their intervals, and the line of no difference."""
    height = len(effects) * ROW + 62

    def paint(figure: Figure) -> None:
        axes = panel(figure, 14, 8, width - 28, len(effects) * ROW)
        axes.axvline(0.0, color=colour("ink"), linewidth=1.5)
        for row, effect in enumerate(effects):
            value, tint = effect.interval, arm_colour(effect.slot)
            if value.low is not None and value.high is not None:
                axes.plot([value.low, value.high], [row, row], color=tint, linewidth=2.5)
            axes.plot([value.mean], [row], marker(effect.slot), **dot(tint))
        ends = [e.interval.low or 0.0 for e in effects] + [e.interval.high or 0.0 for e in effects]
        ends += [0.0, *(e.interval.mean for e in effects)]
        pad = 0.08 * (max(ends) - min(ends)) or 1.0
        axes.set_xlim(min(ends) - pad, max(ends) + pad)
        numbers = [_numbers(effect) for effect in effects]
        label_rows(axes, [effect.label for effect in effects], width, numbers)
        axes.xaxis.set_major_locator(MaxNLocator(max(3, width // 110), steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(signed_tick))
        axes.grid(axis="x")
        axes.set_xlabel("Difference to the control, percentage points")

    return draw(paint, width, height, label)


def _numbers(effect: Effect) -> str:
    value = effect.interval
    mean = text.signed(value.mean)
    return mean if value.low is None else f"{mean} ({text.bounds(value)})"


def budget_chart(
    rows: Sequence[tuple[str, Mapping[str, float], str]],
    phases: Sequence[str],
    width: int,
    label: str,
) -> str:
    """Stacked bars: for each labelled row a value per phase, and its total in words."""
    height = len(rows) * ROW + 58

    def paint(figure: Figure) -> None:
        axes = panel(figure, 14, 8, width - 28, len(rows) * ROW)
        most = max([sum(values.values()) for _, values, _ in rows] + [1.0])
        span = most * (1.16 if width >= 640 else 1.34)
        for row, (_, values, total) in enumerate(rows):
            left = 0.0
            for phase, value in values.items():
                tint = colour(f"phase-{phases.index(phase) % PHASE_COLOURS}")
                edge: dict[str, Any] = {"edgecolor": colour("muted"), "linewidth": 0.8}
                axes.barh(row, value, 0.42, left=left, color=tint, **edge)
                if value / span * (width - 28) > 34:
                    axes.text(left + value / 2, row, f"{value:g}", ha="center", va="center")
                left += value
            axes.annotate(total, (left, row), (6, 0), **BESIDE)
        axes.set_xlim(0, span)
        label_rows(axes, [name for name, _, _ in rows], width)
        axes.xaxis.set_major_locator(MaxNLocator(max(4, width // 90), integer=True))
        axes.grid(axis="x")
        axes.set_xlabel("Epochs")

    return draw(paint, width, height, label)


def lengths_chart(rows: Sequence[tuple[str, int, float, str]], width: int, label: str) -> str:
    """Bars of bytes or of times; a row is (label, slot, length, the length in words)."""
    height = len(rows) * ROW + 14

    def paint(figure: Figure) -> None:
        axes = panel(figure, 14, 8, width - 28, len(rows) * ROW)
        # Every bar leaves room for its words, at about 7 pixels a letter.
        room = width - 28
        span = max(s * room / (room - 14 - 7 * len(words)) for _, _, s, words in rows)
        for row, (_, slot, size, words) in enumerate(rows):
            axes.barh(row, size, 0.36, color=arm_colour(slot))
            axes.annotate(words, (size, row), (6, 0), **BESIDE)
        axes.set_xlim(0, span or 1.0)
        label_rows(axes, [name for name, _, _, _ in rows], width)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)

    return draw(paint, width, height, label)
