"""Arranging runs into experiments and levels of sparsity, and comparing their arms."""

from __future__ import annotations

import json
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

UNIT = 0.03
"""The same for both where channels are cut, for one of a small network is as much."""


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
    """All runs of one task, model and recipe with the same parameters and training.

    `variant` names what sets them apart from other experiments of that recipe, "" if nothing;
    `twice` lists the runs left out because another of the same seed has an equal record.
    """

    task: str
    model: str
    recipe: str
    variant: str
    runs: tuple[Run, ...]
    dense: Cell
    levels: tuple[Level, ...]
    arms: tuple[str, ...]
    twice: tuple[Run, ...]


def arrange(runs: Sequence[Run]) -> list[Experiment]:
    """Group runs by task, model, recipe and settings, and each group into levels of sparsity.

    Of runs with equal records one is kept.

    Raises:
        RegrowError: if two runs with other results have the same seed at the same level:
            counting a seed twice would make an interval too narrow.
    """
    groups: dict[tuple[str, str, str], dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, str(run.path))):
        variants = groups.setdefault((run.task, run.model, run.recipe), {})
        variants.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    return [
        _experiment(_variant(group[0], [each[0] for each in variants.values()]), group)
        for _, variants in sorted(groups.items())
        for _, group in sorted(variants.items())
    ]


def difference(level: Level, cell: Cell) -> Interval | None:
    """Test accuracy of a cell minus the control's, paired by seed; None if nothing is paired."""
    control = level.control
    if control is None or cell.name == control.name or not cell.test.keys() & control.test.keys():
        return None
    return paired_difference(cell.test, control.test)


def unequal_sparsity(a: Cell, b: Cell) -> bool:
    """Whether any seed common to both kept a different share, or counts another total."""
    return any(_differ(x, y) for x, y in _pairs(a, b))


def _differ(x: Arm, y: Arm) -> bool:
    if x.shrunk is not None and y.shrunk is not None:
        return abs(_density(x) - _density(y)) > UNIT * max(_density(x), _density(y))
    return x.total != y.total or abs(x.kept - y.kept) > EQUAL * max(x.kept, y.kept)


def _density(arm: Arm) -> float:
    """What is left of the weights or, where units are cut, of what the budget is of."""
    if arm.shrunk is None:
        return 1.0 - arm.sparsity
    of = arm.shrunk["of"]
    return float(arm.shrunk[of] / arm.shrunk[f"{of}_dense"])


def unequal_epochs(a: Cell, b: Cell) -> bool:
    """Whether any seed common to both trained for a different total of epochs."""
    return any(x.epochs.total != y.epochs.total for x, y in _pairs(a, b))


def unequal_steps(a: Cell, b: Cell) -> bool:
    """Whether any seed common to both trained for a different total of steps."""
    return any(x.steps.total != y.steps.total for x, y in _pairs(a, b))


def _pairs(a: Cell, b: Cell) -> list[tuple[Arm, Arm]]:
    return [(a.by_seed[s], b.by_seed[s]) for s in sorted(a.by_seed.keys() & b.by_seed.keys())]


def _variant(run: Run, others: Sequence[Run]) -> str:
    """The settings in which a run differs from any of the others, in words."""
    keys = dict.fromkeys(key for other in others for key in other.settings)
    differing = [k for k in keys if any(o.settings.get(k) != run.settings.get(k) for o in others)]
    short = [key.split(".", 1)[1] for key in differing]
    return ", ".join(
        # "lr" of the recipe and "lr" of the training are told apart by their part.
        f"{(name if short.count(name) == 1 else key).replace('_', ' ').replace('.', ' ')} "
        + (_plain(run.settings[key]) if key in run.settings else "not recorded")
        for key, name in zip(differing, short, strict=True)
    )


def _plain(value: str) -> str:
    decoded = json.loads(value)
    return decoded if isinstance(decoded, str) else value


def _experiment(variant: str, given: Sequence[Run]) -> Experiment:
    task, model, recipe = given[0].task, given[0].model, given[0].recipe
    kept: dict[str, Run] = {}
    for run in given:
        kept.setdefault(run.content, run)
    runs = tuple(kept.values())
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: -_density(run.arms[recipe])):
        main = run.arms[recipe]
        first = _density(groups[-1][0].arms[recipe]) if groups else None
        apart = SAME_LEVEL if main.shrunk is None else UNIT
        if first is None or _density(main) < first * (1.0 - apart):
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
        variant=variant,
        runs=runs,
        dense=Cell(DENSE, dense),
        levels=levels,
        arms=tuple(dict.fromkeys([*ordered, *names])),
        twice=tuple(run for run in given if kept[run.content] is not run),
    )


def _level(recipe: str, runs: Sequence[Run]) -> Level:
    cells: dict[str, dict[int, Arm]] = {}
    paths: dict[int, Run] = {}
    for run in runs:
        if run.seed in paths:
            raise RegrowError(
                f"seed {run.seed} is there twice at one sparsity with other results, in "
                f"{str(paths[run.seed].path)!r} and {str(run.path)!r}; report only one of them, "
                "as a seed counts once."
            )
        paths[run.seed] = run
        for name, arm in run.arms.items():
            cells.setdefault(name, {})[run.seed] = arm
    made = {name: Cell(name, arms) for name, arms in cells.items()}
    control = made.get(CONTROL) if recipe != CONTROL else None
    return Level(cells=made, main=made[recipe], control=control)
