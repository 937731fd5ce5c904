"""What all figures of the page are made of: legends, tables, labels and the arms' slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from regrow.bench.report import text
from regrow.bench.report.compare import Cell, Experiment, Level
from regrow.bench.report.records import CONTROL, DENSE
from regrow.bench.report.svg import colour_index, marker

WIDE, NARROW = 920, 372


@dataclass(frozen=True)
class Table:
    """A table as text; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a colour variable, and a marker, "line", "dashed" or a patch."""

    label: str
    colour: str
    mark: str = "patch"


@dataclass(frozen=True)
class Figure:
    """A drawing for wide and for narrow pages; `aside` puts it behind a disclosure."""

    heading: str
    caption: str
    wide: Markup
    narrow: Markup
    legend: tuple[Key, ...]
    table: Table
    aside: bool = False


def slots(experiment: Experiment) -> dict[str, int]:
    """Colour and marker of every arm: 0 dense, 1 main, 2 control, then the others."""
    fixed = {DENSE: 0, experiment.recipe: 1, CONTROL: 2 if experiment.recipe != CONTROL else 1}
    others = [name for name in experiment.arms if name not in fixed]
    return {**fixed, **{name: 3 + index for index, name in enumerate(others)}}


def sparse_cells(experiment: Experiment) -> list[tuple[Level, Cell]]:
    """Every sparse arm at every level, arms in the order of the experiment."""
    return [
        (level, level.cells[name])
        for level in experiment.levels
        for name in experiment.arms
        if name != DENSE and name in level.cells
    ]


def twice(chart: Callable[[int], str]) -> tuple[Markup, Markup]:
    """A chart for wide and for narrow pages."""
    return Markup(chart(WIDE)), Markup(chart(NARROW))


def key_of(experiment: Experiment, name: str, mark: str | None = None) -> Key:
    """An arm in a legend, by its marker unless `mark` says otherwise."""
    slot = slots(experiment)[name]
    label = text.sentence(text.arm_name(name)) + (" (control)" if name == CONTROL else "")
    return Key(label, f"arm-{colour_index(slot)}", mark or marker(slot))


def line_key(experiment: Experiment, name: str) -> Key:
    """An arm in the legend of a chart of lines; the dense one is dashed."""
    return key_of(experiment, name, "dashed" if name == DENSE else "line")


def title(cell: Cell) -> str:
    """An arm and its sparsity, as a row of a chart is labelled."""
    name = text.sentence(text.arm_name(cell.name))
    return name if cell.name == DENSE else f"{name}, {text.sparsity(cell.sparsity)}"


def at_level(experiment: Experiment, level: Level) -> str:
    """The level in a heading, where there are several."""
    return f" at {text.sparsity(level.main.sparsity)}" if len(experiment.levels) > 1 else ""


def drawing_label(experiment: Experiment, words: str, level: Level | None = None) -> str:
    """What a drawing shows and of what; no two drawings of a page have the same label."""
    of = f"{experiment.task}, {experiment.model}, {text.arm_name(experiment.recipe)}"
    of += f", {experiment.variant}" if experiment.variant else ""
    return f"{words}: {of}" + (f" at {text.sparsity(level.main.sparsity)}." if level else ".")
