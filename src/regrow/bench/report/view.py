"""What the page template is given: text and figures, all numbers computed from the records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from regrow.bench.report import text
from regrow.bench.report.compare import Cell, Experiment, Level, difference
from regrow.bench.report.figures import Figure, Table, figures, slots, sparse_cells
from regrow.bench.report.records import CONTROL, Run, Spent
from regrow.bench.report.svg import colour_index
from regrow.bench.report.verdict import Verdict, judge, scaled

NONE = "\N{EN DASH}"

MARKER_PATHS = {
    "D": "M8 2 14 8 8 14 2 8Z",
    "o": "M8 3a5 5 0 1 0 .01 0Z",
    "s": "M3.5 3.5h9v9h-9Z",
    "^": "M8 2.5 13.5 13h-11Z",
    "v": "M8 13.5 13.5 3h-11Z",
    "P": "M6 2h4v4h4v4h-4v4H6v-4H2V6h4Z",
    "X": "M4.5 2 8 5.5 11.5 2 14 4.5 10.5 8l3.5 3.5-2.5 2.5L8 10.5 4.5 14 2 11.5 5.5 8 2 4.5Z",
}


@dataclass(frozen=True)
class ArmRow:
    """One row of the table of arms; a cell is a number and a smaller line below it."""

    name: str
    role: str
    colour: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RunRow:
    """One run: where its record is, relative to the page, and how it was started."""

    seed: int
    sparsity: str
    name: str
    link: str
    command: str


@dataclass(frozen=True)
class Section:
    """All that the page says about one experiment."""

    title: str
    seeds: str
    verdict: Verdict
    denominator: str
    head: tuple[str, ...]
    rows: tuple[ArmRow, ...]
    figures: tuple[Figure, ...]
    environment: Table
    runs: tuple[RunRow, ...]


HEAD = (
    "Sparsity",
    "Weights kept",
    "Test accuracy",
    f"Points to the control, 95{text.GAP}% interval",
    "Validation accuracy",
    "Epochs",
    "Steps",
    "Seconds",
    "File bytes",
    "Seeds",
)


def section(experiment: Experiment, page: Path) -> Section:
    """The section of one experiment, with links relative to the page's directory."""
    number = len({run.seed for run in experiment.runs})
    return Section(
        title=f"{experiment.task} · {experiment.model} · {text.arm_name(experiment.recipe)}",
        seeds=text.seeds(number),
        verdict=judge(experiment),
        denominator="; ".join(
            dict.fromkeys(run.arms[run.recipe].denominator for run in experiment.runs)
        ),
        head=HEAD,
        rows=tuple(_rows(experiment)),
        figures=tuple(figures(experiment)),
        environment=_environment(experiment.runs),
        runs=tuple(_run(run, page) for run in experiment.runs),
    )


def _rows(experiment: Experiment) -> list[ArmRow]:
    rows = [_row(experiment, None, experiment.dense, "reference")]
    for level, cell in sparse_cells(experiment):
        roles = {experiment.recipe: "recipe", CONTROL: "control"}
        rows.append(_row(experiment, level, cell, roles.get(cell.name, "")))
    return rows


def _row(experiment: Experiment, level: Level | None, cell: Cell, role: str) -> ArmRow:
    arms = list(cell.by_seed.values())
    points = scaled(difference(level, cell)) if level else None
    gap = (NONE, "")
    if points is not None:
        gap = (text.signed(points.mean), text.bounds(points) if points.n > 1 else "one seed")
    kept, total = fmean(arm.kept for arm in arms), fmean(arm.total for arm in arms)
    return ArmRow(
        name=text.sentence(text.arm_name(cell.name)),
        role=role,
        colour=f"arm-{colour_index(slots(experiment)[cell.name])}",
        cells=(
            (text.sparsity(cell.sparsity), ""),
            (text.count(kept), f"of{text.GAP}{text.count(total)}"),
            text.spread(arm.test for arm in arms),
            gap,
            text.spread(arm.validation for arm in arms),
            _spent([arm.epochs for arm in arms]),
            _spent([arm.steps for arm in arms]),
            (text.count(fmean(arm.seconds for arm in arms)), ""),
            (text.count(round(fmean(arm.file_bytes for arm in arms))), ""),
            (str(len(arms)), ""),
        ),
    )


def _spent(budgets: Sequence[Spent]) -> tuple[str, str]:
    """The total and, where there are several phases, what it is made of."""
    total = text.count(fmean(budget.total for budget in budgets))
    phases = list(dict.fromkeys(phase for budget in budgets for phase in budget.phases))
    if len(phases) < 2:
        return total, ""
    parts = [
        text.count(fmean(b.phases.get(phase, 0) for b in budgets))
        + text.GAP
        + phase.replace("_", text.GAP)
        for phase in phases
    ]
    return total, " + ".join(parts)


def _environment(runs: Sequence[Run]) -> Table:
    """One row per entry; an entry that differs between runs lists its values with their seeds."""
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.environment):
        values: dict[str, list[str]] = {}
        for run in runs:
            shown = _plain(run.environment.get(name, NONE))
            values.setdefault(shown, []).append(str(run.seed))
        if len(values) == 1:
            words = next(iter(values))
        else:
            words = "; ".join(
                f"{value} (seed {', '.join(dict.fromkeys(seeds))})"
                for value, seeds in values.items()
            )
        rows.append((name.replace("_", " "), words))
    return Table(("Entry", "Value"), tuple(rows))


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def _run(run: Run, page: Path) -> RunRow:
    file = os.path.relpath(run.path.resolve() / "record.json", page.resolve().parent)
    return RunRow(
        seed=run.seed,
        sparsity=text.sparsity(run.arms[run.recipe].sparsity),
        name=run.path.resolve().name,
        link=quote(Path(file).as_posix()),
        command=run.command,
    )
