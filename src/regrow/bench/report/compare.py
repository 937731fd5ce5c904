"""Arranging runs into experiments and levels of sparsity, and comparing their arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from regrow.bench.report.records import CONTROL, DENSE, Arm, Run
from regrow.bench.statistics import Interval, paired_difference, student_interval
from regrow.core.errors import RegrowError

SAME_LEVEL = 0.01
"""Two runs are at one level of sparsity if their densities differ by at most this fraction."""

EQUAL = 0.005
"""Two arms are equally sparse if their densities differ by at most this fraction."""


@dataclass(frozen=True)
class Cell:
    """One arm at one level of sparsity: its result for every seed, in order of seed."""

    name: str
    by_seed: Mapping[int, Arm]

    @property
    def sparsity(self) -> float:
        return fmean(arm.sparsity for arm in self.by_seed.values())

    @property
    def test(self) -> Mapping[int, float]:
        return {seed: arm.test for seed, arm in self.by_seed.items()}

    @property
    def interval(self) -> Interval:
        return student_interval(self.test.values())


@dataclass(frozen=True)
class Level:
    """All arms of the runs whose main arm ended at one sparsity."""

    cells: Mapping[str, Cell]
    main: Cell
    control: Cell | None


@dataclass(frozen=True)
class Experiment:
    """All runs of one task, model and recipe."""

    task: str
    model: str
    recipe: str
    runs: tuple[Run, ...]
    dense: Cell
    levels: tuple[Level, ...]
    arms: tuple[str, ...]


def arrange(runs: Sequence[Run]) -> list[Experiment]:
    """Group runs by task, model and recipe, and each group into levels of sparsity.

    Raises:
        RegrowError: if two runs have the same seed at the same level: counting a seed twice
            would make an interval too narrow.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, str(run.path))):
        groups.setdefault((run.task, run.model, run.recipe), []).append(run)
    return [_experiment(key, tuple(group)) for key, group in sorted(groups.items())]


def difference(level: Level, cell: Cell) -> Interval | None:
    """Test accuracy of a cell minus the control's, paired by seed; None if nothing is paired."""
    control = level.control
    if control is None or cell.name == control.name or not cell.test.keys() & control.test.keys():
        return None
    return paired_difference(cell.test, control.test)


def unequal_sparsity(a: Cell, b: Cell) -> bool:
    """Whether any seed common to both kept a different share, or counts another total."""
    return any(
        x.total != y.total or abs(x.kept - y.kept) > EQUAL * max(x.kept, y.kept)
        for x, y in _pairs(a, b)
    )


def unequal_epochs(a: Cell, b: Cell) -> bool:
    """Whether any seed common to both trained for a different total of epochs."""
    return any(x.epochs.total != y.epochs.total for x, y in _pairs(a, b))


def unequal_steps(a: Cell, b: Cell) -> bool:
    """Whether any seed common to both trained for a different total of steps."""
    return any(x.steps.total != y.steps.total for x, y in _pairs(a, b))


def _pairs(a: Cell, b: Cell) -> list[tuple[Arm, Arm]]:
    return [(a.by_seed[s], b.by_seed[s]) for s in sorted(a.by_seed.keys() & b.by_seed.keys())]


def _experiment(key: tuple[str, str, str], runs: tuple[Run, ...]) -> Experiment:
    task, model, recipe = key
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: run.arms[recipe].sparsity):
        density = 1.0 - run.arms[recipe].sparsity
        first = 1.0 - groups[-1][0].arms[recipe].sparsity if groups else None
        if first is None or density < first * (1.0 - SAME_LEVEL):
            groups.append([])
        groups[-1].append(run)
    levels = tuple(_level(recipe, sorted(group, key=lambda run: run.seed)) for group in groups)
    names = dict.fromkeys(name for run in runs for name in run.arms)
    ordered = [name for name in (DENSE, recipe, CONTROL) if name in names]
    dense: dict[int, Arm] = {}
    for run in runs:
        dense.setdefault(run.seed, run.arms[DENSE])
    return Experiment(
        task=task,
        model=model,
        recipe=recipe,
        runs=runs,
        dense=Cell(DENSE, dense),
        levels=levels,
        arms=tuple(dict.fromkeys([*ordered, *names])),
    )


def _level(recipe: str, runs: Sequence[Run]) -> Level:
    cells: dict[str, dict[int, Arm]] = {}
    paths: dict[int, Run] = {}
    for run in runs:
        if run.seed in paths:
            raise RegrowError(
                f"seed {run.seed} is there twice at one sparsity, in {str(paths[run.seed].path)!r} "
                f"and {str(run.path)!r}; report only one of them, as a seed counts once."
            )
        paths[run.seed] = run
        for name, arm in run.arms.items():
            cells.setdefault(name, {})[run.seed] = arm
    made = {name: Cell(name, arms) for name, arms in cells.items()}
    control = made.get(CONTROL) if recipe != CONTROL else None
    return Level(cells=made, main=made[recipe], control=control)
