"""Axes, ticks and labels that the figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator

from regrow.bench.report.svg import colour

ROW = 46
"""Pixels for one labelled bar: the label stands above its bar, so names may be long."""

_TICKS = (0.9, 0.99, 0.0, 0.999, 0.97, 0.5, 0.95, 0.98, 0.8, 0.995, 0.9999, 0.998, 0.93, 0.75)

BESIDE: dict[str, Any] = {
    "textcoords": "offset points",
    "va": "center",
    "ha": "left",
    "annotation_clip": False,
}
"""How an annotation stands to the right of a bar's end."""


def dot(tint: str) -> dict[str, Any]:
    """A filled marker with an edge that parts it from what it covers."""
    return {"color": tint, "markersize": 9.5, "mec": colour("surface"), "mew": 1.2}


def depth_of(sparsity: float) -> float:
    """-log10 of density: 0 for dense, 1 for 90 % sparsity, 2 for 99 %."""
    return -math.log10(max(1.0 - sparsity, 1e-9))


def sparsity_of(depth: float) -> float:
    """The inverse of `depth_of`."""
    return 1.0 - 10.0**-depth


def distinct(places: Sequence[float], gap: float) -> list[float]:
    """The places in order, without those within `gap` of the one before."""
    chosen: list[float] = []
    for place in sorted(places):
        if not chosen or place - chosen[-1] > gap:
            chosen.append(place)
    return chosen


def sparsity_ticks(
    axis: Axis,
    limits: tuple[float, float],
    pixels: float,
    apart: float,
    first: Sequence[float] = (),
) -> None:
    """Mark the sparsities in `first`, then the roundest that leave `apart` pixels in between."""
    low, high = limits
    chosen = list(first)
    for sparsity in _TICKS:
        place = depth_of(sparsity)
        gaps = [abs(place - depth_of(other)) * pixels / (high - low) for other in chosen]
        if low <= place <= high and min(gaps, default=apart) >= apart:
            chosen.append(sparsity)
    chosen.sort()
    axis.set_ticks([depth_of(s) for s in chosen], [f"{100 * s:.4g} %" for s in chosen])


def signed_tick(value: float, _: object) -> str:
    """A tick of differences; zero has no sign."""
    return f"{value:+g}".replace("-", "−") if value else "0"


def percent_axis(axes: Axes) -> None:
    """Percent upwards, with lines across."""
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))


def label_rows(axes: Axes, names: Sequence[str], width: float, numbers: Sequence[str] = ()) -> None:
    """One row per name, from the top: the name above the row's bar, its numbers after it."""
    axes.set_ylim(len(names) - 0.5, -0.62)
    axes.set_yticks([])
    for row, name in enumerate(names):
        after = f":  {numbers[row]}" if numbers else ""
        axes.annotate(
            _shorten(name, max(8, int((width - 28) / 7) - len(after))) + after,
            (0, row),
            (0, 12),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="bottom",
            annotation_clip=False,
            bbox={"facecolor": colour("surface"), "edgecolor": "none", "pad": 1.0},
        )


def panel_title(axes: Axes, text: str, shift: float = 0.0) -> None:
    """What a panel shows, above its upper left corner."""
    place: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "bottom",
    }
    axes.annotate(text, (0, 1), (shift, 8), color=colour("muted"), **place)


def _shorten(name: str, limit: int) -> str:
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit // 2) + 1 :]}"
