"""A task of three clouds of points, and runs of it without the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regrow.bench import Splits, Task, TensorPair, Training
from regrow.bench.config import RunConfig, configure
from regrow.bench.run import run
from regrow.bench.tasks import TASKS
from regrow.core.table import Row, Table

TRAINING = Training(
    dense_epochs=2,
    fine_tune_epochs=4,
    batch_size=16,
    lr=0.1,
    fine_tune_lr=0.05,
    precision="fp32",
    threads=1,
)


def points(seed: int, count: int) -> TensorPair:
    labels = torch.arange(count) % 3
    centres = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))
    return TensorPair(centres[labels] + noise, labels)


def splits() -> Splits:
    return Splits(points(1, 120), points(2, 45), points(3, 60))


def network(_: torch.Generator) -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3)
    )


def small(**changes: Any) -> Task:
    parts = splits()
    return replace(Task("small", lambda _: parts, {"mlp": network}, TRAINING), **changes)


def configured(
    monkeypatch: Any,
    task: Task,
    recipe: str,
    settings: Sequence[str] = (),
    controls: Sequence[str] = ("one_way",),
    seed: int = 0,
) -> RunConfig:
    """The configuration of a run of a task that is in no table otherwise."""

    def small_task() -> Task:
        return task

    table = Table("task", *TASKS, Row("small", small_task, "-"))
    monkeypatch.setattr("regrow.bench.tasks.TASKS", table)
    config, found = configure(recipe, task="small", settings=settings, controls=controls, seed=seed)
    assert found is task
    return config


def trained(config: RunConfig, task: Task, out: Path, **options: Any) -> dict[str, Any]:
    return run(config, task, out, device="cpu", **options)


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Half the squared distance to one-hot labels."""
    return ((outputs - nn.functional.one_hot(labels, 3)) ** 2).sum(1).mean() / 2
