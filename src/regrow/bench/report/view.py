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
from regrow.bench.report.deploy import Deployment, deployment
from regrow.bench.report.figures import figures
from regrow.bench.report.parts import Figure, Table, slots, sparse_cells
from regrow.bench.report.records import CONTROL, DENSE, Arm, Run, Spent
from regrow.bench.report.svg import colour_index
from regrow.bench.report.verdict import Verdict, judge, scaled

NONE = "\N{EN DASH}"

MARKER_PATHS = {
    "patch": "M1 3h14v10H1Z",
    "line": "M0 8h16",
    "dashed": "M0 8h16",
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
class ArmGroup:
    """The rows of one level; no heading where there is only one level, and for the dense arm."""

    heading: str
    rows: tuple[ArmRow, ...]


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
    head: tuple[str, ...]
    caption: str
    groups: tuple[ArmGroup, ...]
    figures: tuple[Figure, ...]
    deployment: Deployment | None
    environment: Table
    runs: tuple[RunRow, ...]


HEAD = (
    "Sparsity",
    "Test accuracy",
    f"Points to the control, 95{text.GAP}% interval",
    "Weights kept",
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
        title=" · ".join(
            name
            for name in (
                experiment.task,
                experiment.model,
                text.arm_name(experiment.recipe),
                experiment.variant,
            )
            if name
        ),
        seeds=text.seeds(number),
        verdict=judge(experiment),
        head=HEAD,
        caption=_caption(experiment),
        groups=tuple(_groups(experiment)),
        figures=tuple(figures(experiment)),
        deployment=deployment(experiment),
        environment=_environment(experiment.runs),
        runs=tuple(_run(run, page) for run in experiment.runs),
    )


def _caption(experiment: Experiment) -> str:
    """How to read the table of arms, with the split of a budget that all arms share."""
    cells = [cell for _, cell in sparse_cells(experiment)]
    counted = "; ".join(dict.fromkeys(run.arms[run.recipe].denominator for run in experiment.runs))
    several = max(len(cell.by_seed) for cell in cells) > 1
    words = "Means over seeds, ± the standard deviation." if several else "One seed."
    arms = [arm for cell in cells for arm in cell.by_seed.values()]
    fresh = {arm.name for arm in arms if DENSE not in arm.epochs.phases}
    each = f"Each other than {text.joined(sorted(fresh))}" if fresh else "Each arm of a run"
    words += f" Sparsity counts {counted}. {each} starts from the same dense network"
    words += "; differences are paired by seed and computed before rounding."
    for unit, split in _shared(experiment).items():
        words += f" {text.sentence(unit)} of every sparse arm: {split}."
    return words


def _shared(experiment: Experiment) -> dict[str, str]:
    """Epochs and steps to their split into phases, where all sparse arms have the same one."""
    arms = [arm for _, cell in sparse_cells(experiment) for arm in cell.by_seed.values()]
    budgets = {"epochs": [arm.epochs for arm in arms], "steps": [arm.steps for arm in arms]}
    return {
        unit: split
        for unit, spent in budgets.items()
        if all(budget == spent[0] for budget in spent) and (split := _spent(spent)[1])
    }


def _groups(experiment: Experiment) -> list[ArmGroup]:
    roles = {experiment.recipe: "recipe", CONTROL: "control"}
    shared = _shared(experiment)
    groups = [ArmGroup("", (_row(experiment, None, experiment.dense, "reference", shared),))]
    for level in experiment.levels:
        rows = tuple(
            _row(experiment, level, cell, roles.get(cell.name, ""), shared)
            for its, cell in sparse_cells(experiment)
            if its is level
        )
        several = len(experiment.levels) > 1
        at = f"Recipe at {text.sparsity(level.main.sparsity)} sparsity"
        groups.append(ArmGroup(at if several else "", rows))
    return groups


def _row(
    experiment: Experiment, level: Level | None, cell: Cell, role: str, shared: Mapping[str, str]
) -> ArmRow:
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
            text.spread(arm.test for arm in arms),
            gap,
            (text.count(kept), f"of{text.GAP}{text.count(total)}{_macs(arms)}"),
            text.spread(arm.validation for arm in arms),
            _spent([arm.epochs for arm in arms], "epochs" not in shared),
            _spent([arm.steps for arm in arms], "steps" not in shared),
            (text.count(fmean(arm.seconds for arm in arms)), ""),
            (text.count(round(fmean(arm.file_bytes for arm in arms))), ""),
            (str(len(arms)), ""),
        ),
    )


def _macs(arms: Sequence[Arm]) -> str:
    """What is left of the multiply-adds, where channels were cut out."""
    shares = [a.shrunk["macs"] / a.shrunk["macs_dense"] for a in arms if a.shrunk is not None]
    return f"; {100 * fmean(shares):.1f}{text.GAP}% of the multiply-adds" if shares else ""


def _spent(budgets: Sequence[Spent], split: bool = True) -> tuple[str, str]:
    """The total and, where there are several phases and `split`, what it is made of."""
    total = text.count(fmean(budget.total for budget in budgets))
    phases = list(dict.fromkeys(phase for budget in budgets for phase in budget.phases))
    if len(phases) < 2 or not split:
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
