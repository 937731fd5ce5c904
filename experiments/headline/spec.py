"""From arms to the cells of a table: which data, network, targets and seeds."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, Arm, Setting
from common import Table
from torch import Tensor, nn

from regrow.bench import models
from regrow.bench.cells import Cell
from regrow.bench.data import Splits
from regrow.bench.models import matching_width
from regrow.bench.tasks import Task, Training, cifar10
from regrow.core.budget import kept_count
from regrow.engine.pruning import Pruning
from regrow.model.inventory import inventory, weights_of


@dataclass(frozen=True)
class Point:
    """A target.

    Attributes:
        sparsity: of all arms but `no_regrowth`.
        overshoot: the paper's kind, well beyond the target.
        arms: globs of the arms measured here.
        seeds, main_seeds: how many, of every arm and of the main ones.
    """

    sparsity: float
    overshoot: float
    arms: tuple[str, ...] = ("*",)
    seeds: int = 3
    main_seeds: int = 5


@dataclass(frozen=True)
class Spec:
    """One table.

    Attributes:
        name: of the table and its record.
        model: one of the CIFAR networks.
        images: training images, the first so many of the training part; None for all.
        training: of all arms; its dense epochs are the dense network's.
        epochs: of every arm.
        points: the targets.
    """

    name: str
    model: str
    images: int | None
    training: Training
    epochs: int
    points: tuple[Point, ...]

    def table(self) -> Table:
        """Arms as NAME@SPARSITY, the main ones first."""
        made: dict[str, Callable[[int], Cell]] = {}
        seeds: dict[str, range] = {}
        ordered = sorted(ARMS.items(), key=lambda item: not item[1].main)
        for name, arm in ordered:
            for point in self.points:
                if any(fnmatch.fnmatchcase(name, glob) for glob in point.arms):
                    label = f"{name}@{100 * point.sparsity:g}"
                    made[label] = partial(self._cell, point, arm)
                    seeds[label] = range(point.main_seeds if arm.main else point.seeds)
        return Table(self.name, made, seeds, HOOKS)

    def setting(self, point: Point) -> Setting:
        steps = -(-(self.images or 45_000) // self.training.batch_size)
        return Setting(point.sparsity, point.overshoot, self.epochs, steps)

    @property
    def task(self) -> Task:
        """CIFAR-10, or the first part of it."""
        full = cifar10()
        if self.images is None:
            return full
        splits = partial(_first, full, self.images)
        return replace(full, name=f"cifar10-{self.images}", splits=splits)

    def _cell(self, point: Point, arm: Arm, seed: int) -> Cell:
        if arm.program is None:
            return self._small(point, seed)
        training = replace(self.training, **arm.training)
        program = arm.program(self.setting(point), seed)
        lengths = tuple(stage.length.value for stage in program.stages if stage.length)
        cycles: tuple[int, ...] = (sum(lengths),)
        if arm.restart:
            cycles = lengths if len(lengths) > 1 else self.setting(point).halves
        return Cell(self.task, self.model, seed, training, program, cycles, tag=arm.tag)

    def _small(self, point: Point, seed: int) -> Cell:
        """A dense network of as many weights, trained for as long as network and arm together."""
        build: Any = {"resnet20": models.resnet20}.get(self.model, models.vgg16_bn)
        full = inventory(self.task.models[self.model](torch.Generator())).total
        width = matching_width(lambda w: build(width=w), kept_count(full, 1 - point.sparsity))
        name = f"{build.__name__}-width-{width:.6f}"

        def make(generator: torch.Generator) -> nn.Module:
            made: nn.Module = build(width=width, generator=generator)
            return made

        training = replace(self.training, dense_epochs=self.training.dense_epochs + self.epochs)
        return Cell(replace(self.task, models={name: make}), name, seed, training)


def _first(task: Task, images: int, folder: Path | None) -> Splits:
    """The first training images, 2,000 of the validation images, all test images.

    CIFAR-10 is published in a random order, so the first of them are a fair sample.
    """
    whole = task.splits(folder)
    train = whole.train.take(torch.arange(images))
    return replace(whole, train=train, validation=whole.validation.take(torch.arange(2_000)))


def faster(model: nn.Module, optimizer: torch.optim.Optimizer, pruning: Pruning) -> None:
    """Weights that have returned take steps three times as long."""
    weights = weights_of(model, inventory(model))
    before: dict[str, Tensor] = {}
    seen = {"masks": pruning.masks}

    def remember(*_: Any) -> None:
        before.update({name: w.detach().clone() for name, w in weights.items()})

    def hurry(*_: Any) -> None:
        for name, weight in weights.items():
            state = optimizer.state[weight]
            # Kept with the optimiser's own state, so that a resumed run knows them.
            if "returned" not in state:
                state["returned"] = torch.zeros_like(weight)
            returned = state["returned"].bool()  # A loaded state has the weight's type.
            with torch.no_grad():
                weight.add_(torch.where(returned, 2 * (weight - before[name]), 0))
            if pruning.masks is not seen["masks"]:
                returned |= pruning.masks[name] & ~seen["masks"][name]
                state["returned"].copy_(returned & pruning.masks[name])
        seen["masks"] = pruning.masks

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(hurry)


HOOKS = {"faster": faster}
