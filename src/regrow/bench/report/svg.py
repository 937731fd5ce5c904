"""Matplotlib figures as inline SVG that takes its colours and its font from the page.

A figure is drawn with sentinel colours, one for each name in `COLOURS`; the SVG text then names
the CSS variable instead, so one drawing serves the light and the dark theme.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ARM_COLOURS = 9
PHASE_COLOURS = 6
COLOURS = (
    *("ink", "muted", "grid", "surface", "survived", "regrown"),
    *(f"arm-{i}" for i in range(ARM_COLOURS)),
    *(f"phase-{i}" for i in range(PHASE_COLOURS)),
)
MARKERS = ("D", "o", "s", "^", "v", "P", "X")

_SENTINEL = {name: f"#0a{index:02x}07" for index, name in enumerate(COLOURS)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "regrow",
    "svg.id": None,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _SENTINEL["muted"],
    "axes.linewidth": 1.0,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.labelcolor": _SENTINEL["muted"],
    "axes.labelsize": 12.0,
    "font.size": 12.0,
    "text.color": _SENTINEL["ink"],
    "grid.color": _SENTINEL["grid"],
    "grid.linewidth": 1.0,
    "xtick.color": _SENTINEL["muted"],
    "ytick.color": _SENTINEL["muted"],
    "xtick.labelcolor": _SENTINEL["muted"],
    "ytick.labelcolor": _SENTINEL["muted"],
    "xtick.labelsize": 12.0,
    "ytick.labelsize": 12.0,
    "ytick.major.size": 0.0,
    "xtick.major.size": 4.0,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 2.0,
}


def colour(name: str) -> str:
    """The sentinel that stands for the CSS variable `--name`."""
    return _SENTINEL[name]


def arm_colour(slot: int) -> str:
    """The colour of an arm; slot 0 is the dense one, and late slots share colours, not markers."""
    return colour(f"arm-{colour_index(slot)}")


def colour_index(slot: int) -> int:
    """The index of an arm's colour: 0, 1 and 2 belong to dense, main and control alone."""
    return slot if slot < ARM_COLOURS else 3 + (slot - 3) % (ARM_COLOURS - 3)


def marker(slot: int) -> str:
    """The marker of an arm, so that arms differ by more than colour."""
    return MARKERS[slot % len(MARKERS)]


def draw(paint: Callable[[Figure], None], width: int, height: int, label: str) -> str:
    """An `<svg>` element of the figure that `paint` fills, `width` by `height` CSS pixels.

    Args:
        paint: draws on an empty figure, with the colours of `colour`.
        width: of the view box; the element itself scales to its container.
        height: of the view box.
        label: what the figure shows, for readers who do not see it.
    """
    with warnings.catch_warnings(), mpl.rc_context(_STYLE):
        # The browser's fonts draw the text, so a glyph that matplotlib's font lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width / 72, height / 72), facecolor="none")
        canvas = FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(buffer, metadata=empty)
    return _inline(buffer.getvalue(), width, height, label)


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the upper left corner."""
    full_width, full_height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    return figure.add_axes(
        (
            left / full_width,
            1.0 - (top + height) / full_height,
            width / full_width,
            height / full_height,
        )
    )


def _inline(text: str, width: int, height: int, label: str) -> str:
    body = text[text.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    # Element names are unique within one figure only: drop those nobody refers to and prefix
    # the others with the figure's own digest.
    prefix = "f" + hashlib.sha256(f"{label}\0{width}\0{text}".encode()).hexdigest()[:10]
    used = set(re.findall(r'(?:xlink:href="|clip-path="url\()#([\w.-]+)', body))

    def rename(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in used else ""

    body = re.sub(r' id="([\w.-]+)"', rename, body)
    body = body.replace('xlink:href="#', f'href="#{prefix}-')
    body = body.replace('clip-path="url(#', f'clip-path="url(#{prefix}-')
    body = re.sub(r'(<text style=")([^"]*)"', lambda m: f'{m[1]}{_page_font(m[2])}"', body)
    body = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", body)
    for name, sentinel in _SENTINEL.items():
        body = body.replace(sentinel, f"var(--{name})")
    body = re.sub(r"\n\s*", "\n", body).strip()
    return (
        f'<svg class="chart" role="img" aria-label="{html.escape(label)}" '
        f'viewBox="0 0 {width} {height}">\n{body}'
    )


def _page_font(style: str) -> str:
    """Keep size, weight, anchor and fill; let the family be the page's."""
    style = re.sub(r"font: (?:(\d{3}) )?([\d.]+px) [^;]*", r"font-weight: \1; font-size: \2", style)
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    return style.replace("font-weight: ; ", "")
