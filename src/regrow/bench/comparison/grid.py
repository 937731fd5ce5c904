"""A study's cells: which arms, at which sparsities, with which seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from regrow.bench.cells import Cell
from regrow.bench.comparison.strategies import (
    GRADUAL,
    ONE_WAY,
    RANDOM,
    SHUFFLED,
    SMALL,
    Strategy,
    find,
)
from regrow.bench.comparison.thin import thinned
from regrow.bench.config import typed_training
from regrow.bench.tasks import Task, Training, checked_splits, find_task
from regrow.core.errors import RegrowError, unknown
from regrow.engine.program import Program

_TELLING = 0.95


@dataclass(frozen=True)
class Place:
    """Where a cell stands in a study.

    Attributes:
        task, model: what is trained.
        pattern: "element", "unit" or another: arms of one pattern are compared.
        arm: the strategy and, where there are several, the criterion.
        sparsity: of the pattern's budget.
        seed: of weights, data order and random parts.
        trial: the factor of the learning rate.
    """

    task: str
    model: str
    pattern: str
    arm: str
    sparsity: float
    seed: int
    trial: float = 1.0


@dataclass(frozen=True)
class Grid:
    """Arms of one task, on some networks, at some sparsities, with some seeds.

    Attributes:
        task: a name of the task table, or "package.module:function".
        strategies: names.
        sparsities: of what the pattern says.
        models: of the task; none named: its first.
        criteria: of what is cut; one, or each with each strategy. None named: magnitude, or the
            norm of units.
        pattern: what is cut together; a name or a table.
        seeds: how many, from 0 on.
        epochs: of every arm, after the dense network; one that starts from initial weights gets
            the dense network's epochs besides.
        trials: factors of the learning rate; every arm is tried with each, and the one that is
            best on validation data counts.
        training: of the task, where it differs.
    """

    task: str
    strategies: tuple[str, ...]
    sparsities: tuple[float, ...]
    models: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    pattern: Any = "element"
    seeds: int = 5
    epochs: int = 20
    trials: tuple[float, ...] = (1.0,)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The pattern's name."""
        return self.pattern if isinstance(self.pattern, str) else str(self.pattern["name"])

    @property
    def usual(self) -> str:
        """The criterion of the controls, and of all arms where none is named."""
        return "norm" if self.kind == "unit" else "magnitude"


@dataclass(frozen=True)
class Study:
    """Grids, and the strategies of its own.

    Attributes:
        name: in the report.
        grids: of arms.
        own: strategies by name.
        equal: whether all arms of a comparison must get the same budget.
    """

    name: str
    grids: tuple[Grid, ...]
    own: Mapping[str, Strategy] = field(default_factory=dict)
    equal: bool = True

    def cells(self, data_dir: Path | None = None) -> dict[Place, Cell]:
        """Every cell, all arms of the first seed before those of the next.

        Args:
            data_dir: where data sets lie, for networks built small, which are made to fit an input.

        Raises:
            RegrowError: a name is not known, a strategy does not go with a sparsity or budget, or
                an arm would get another budget than the others.
        """
        made: dict[Place, Cell] = {}
        for grid in self.grids:
            task = find_task(grid.task)
            example = cache(partial(_example, task, data_dir))
            for seed in range(grid.seeds):
                made |= self._of_seed(grid, task, example, seed)
        return dict(sorted(made.items(), key=lambda item: item[0].seed))

    def check_data(self, data_dir: Path | None) -> None:
        """Load every data set once.

        Raises:
            RegrowError: one is absent or damaged.
        """
        for name in dict.fromkeys(grid.task for grid in self.grids):
            checked_splits(find_task(name), data_dir)

    def _of_seed(
        self, grid: Grid, task: Task, example: Callable[[], Tensor], seed: int
    ) -> Iterator[tuple[Place, Cell]]:
        training = replace(task.training, **typed_training(grid.training, task))
        models = grid.models or (next(iter(task.models)),)
        for model in models:
            if model not in task.models:
                raise unknown(f"model of task {task.name!r}:", model, task.models)
            for sparsity in grid.sparsities:
                for trial in grid.trials:
                    place = Place(task.name, model, grid.kind, "", sparsity, seed, trial)
                    yield from self._arms(grid, task, training, place)
                    here = replace(place, arm=SMALL)
                    yield here, _small(grid, task, training, here, example)

    def _arms(
        self, grid: Grid, task: Task, training: Training, place: Place
    ) -> Iterator[tuple[Place, Cell]]:
        tried = replace(training, fine_tune_lr=training.fine_tune_lr * place.trial)
        for arm, strategy, cut in self._strategies(grid, place.sparsity):
            epochs, lr = grid.epochs, tried.fine_tune_lr
            try:
                program = strategy.program(place.sparsity, epochs, place.seed, cut)
                if program.start == "initial":  # As much as others have with their dense one.
                    epochs, lr = training.dense_epochs + epochs, training.lr * place.trial
                    program = strategy.program(place.sparsity, epochs, place.seed, cut)
            except RegrowError as error:
                time = f"{epochs} epoch{'s' * (epochs != 1)}"
                raise RegrowError(
                    f"{arm} at {100 * place.sparsity:g} % in {time}: {error}"
                ) from error
            self._check_budget(arm, program, epochs)
            cycles = strategy.cycles(program, program.epochs or epochs)
            here = replace(place, arm=arm)
            yield (
                here,
                Cell(task, place.model, place.seed, tried, program, cycles, lr, name=_told(here)),
            )

    def _strategies(
        self, grid: Grid, sparsity: float
    ) -> Iterator[tuple[str, Strategy, dict[str, Any]]]:
        """Arms of a grid at a sparsity, and how they cut; controls last.

        At one sparsity there is a twin of each whose scores are shuffled, for the alarm: at the
        greatest up to `_TELLING`, beyond which arms may collapse with sound scores.
        """
        several = len(grid.criteria) > 1
        telling = [level for level in grid.sparsities if level <= _TELLING]
        shuffled = max(telling) if telling else min(grid.sparsities)
        for name in grid.strategies:
            strategy = find(name, self.own)
            for criterion in grid.criteria or (grid.usual,):
                arm = f"{name}, {criterion}" if several else name
                cut = {"criterion": criterion, "pattern": grid.pattern}
                yield arm, strategy, cut
                if sparsity == shuffled and _can_be_shuffled(grid, strategy, criterion):
                    wrong = {"name": "shuffled", "of": criterion}
                    yield arm + SHUFFLED, strategy, {**cut, "criterion": wrong}
        cut = {"pattern": grid.pattern, "criterion": grid.usual}
        yield RANDOM.name, RANDOM, cut
        yield GRADUAL.name, GRADUAL, cut
        if sparsity == shuffled and grid.kind != "unit":
            wrong = {"name": "shuffled", "of": grid.usual}
            yield GRADUAL.name + SHUFFLED, GRADUAL, {**cut, "criterion": wrong}

    def _check_budget(self, arm: str, program: Program, epochs: int) -> None:
        if self.equal and program.epochs not in (None, epochs):
            raise RegrowError(
                f"arm {arm!r} lasts {program.epochs} epochs, the others {epochs}; make them "
                "equal, or say budget = 'unequal' above the grids, which every figure then tells."
            )


def _can_be_shuffled(grid: Grid, strategy: Strategy, criterion: str) -> bool:
    """Whether the places that a criterion chooses stay chosen: nothing returns elsewhere."""
    own = "criterion" in strategy.settings or criterion in ("random", "shuffled")
    return grid.kind != "unit" and strategy.recipe in ONE_WAY and not own


def _example(task: Task, data_dir: Path | None) -> Tensor:
    return checked_splits(task, data_dir).train.images[:1]


def _small(
    grid: Grid, task: Task, training: Training, place: Place, example: Callable[[], Tensor]
) -> Cell:
    """The cell of a network built small and trained from scratch for all the epochs."""
    of = "parameters"
    if grid.kind == "unit":
        of = "macs" if isinstance(grid.pattern, str) else str(grid.pattern.get("of", "macs"))
    share = 1 - place.sparsity
    name = f"{place.model} with {100 * share:.4g} % of the {of}"
    make = thinned(task.models[place.model], example, share, of)
    own = replace(task, models={**task.models, name: make})
    epochs = training.dense_epochs + grid.epochs
    lr = training.lr * place.trial
    return Cell(own, name, place.seed, training, None, (epochs,), lr, name=_told(place))


def _told(place: Place) -> str:
    tried = "" if place.trial == 1 else f", learning rate x {place.trial:g}"
    return f"{place.model}, {place.arm} at {100 * place.sparsity:g} %, seed {place.seed}{tried}"
