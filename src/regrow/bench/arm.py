"""One arm, from a device to its figures: what a run and a store of cells have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from regrow.bench.data import Splits, TensorPair
from regrow.bench.environment import native_bf16
from regrow.bench.job import Job
from regrow.bench.state import StateFile
from regrow.bench.tasks import Task, Training
from regrow.bench.trainer import Trainer
from regrow.core.allocator import keep_freed_memory
from regrow.core.errors import RegrowError, unknown
from regrow.core.rng import generator, seed_of
from regrow.engine.program import Program
from regrow.model.inspection import inspect

_DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device(name: str) -> None:
    """Refuse a name that is of no kind of device.

    Raises:
        RegrowError: it is not.
    """
    if name not in _DEVICES:
        raise unknown("device", name, _DEVICES)


def open_fabric(device: str, devices: int, training: Training) -> Fabric:
    """Lightning Fabric on a device, launched.

    Raises:
        RegrowError: the device is unknown or not here.
    """
    check_device(device)
    try:
        fabric = Fabric(accelerator=device, devices=devices, precision=fabric_precision(training))
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise RegrowError(
            f"{devices} x {device!r} cannot be had here: {error}; choose another --device or fewer "
            "--devices."
        ) from error
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    return fabric


def fabric_precision(training: Training) -> Any:
    """Fabric's name of the precision; "auto" asks the hardware."""
    return "bf16-mixed" if precision(training) == "bf16" else "32-true"


def precision(training: Training) -> str:
    """Which of bf16 and fp32 it is; "auto" asks the hardware."""
    if training.precision != "auto":
        return training.precision
    return "bf16" if torch.cuda.is_available() or native_bf16() else "fp32"


def initial(task: Task, model: str, seed: int) -> Callable[[], nn.Module]:
    """Makes a task's network with the initial weights of a seed, the same at every call."""

    def make() -> nn.Module:
        torch.manual_seed(seed_of(seed, "weights"))
        return task.models[model](generator(seed, "weights"))

    return make


def shapes(splits: Splits, model: nn.Module) -> dict[str, Any]:
    """The form of data and network: a checkpoint made with another form is refused."""
    parts = (splits.train, splits.validation, splits.test)
    return {
        "data": [[list(part.images.shape), len(part)] for part in parts],
        "network": [[name, list(t.shape)] for name, t in model.state_dict().items()],
    }


def cycles_of(program: Program) -> tuple[int, ...]:
    """Epochs of each learning-rate cycle: one per stage that lasts, at most."""
    return tuple(
        stage.length.value if stage.length else _most(stage.plan.schedule)
        for stage in program.stages
        if stage.length is None or stage.length.value
    )


def _most(schedule: Any) -> int:
    # Patience ends by a signal, but each of its cuts has a cap.
    return int(schedule.cap * len(schedule.sparsities))


def train_arm(
    trainer: Trainer,
    job: Job,
    checkpoint: StateFile,
    test: TensorPair,
    *,
    stop_at: float | None = None,
) -> dict[str, Any]:
    """Train an arm, and measure it: the test set is read here and nowhere else, once.

    Args:
        trainer: of the arm's network, data and seed.
        job: the arm.
        checkpoint: where progress is kept; it is left to the caller to delete.
        test: the test set.
        stop_at: see `Trainer.run`.

    Returns:
        `state` and `keep` (tensors), `history` and `events` (of epochs and masks), and `result`:
        sparsity, kept, total, validation_accuracy, test_accuracy, epochs, steps, rehearsed,
        seconds.

    Raises:
        Paused, RegrowError: as `Trainer.run` does.
    """
    trained = trainer.run(job, checkpoint, stop_at=stop_at)
    model = trainer.make_model()
    model.load_state_dict(trained.state)
    counts = inspect(model, masks=trained.keep)
    return {
        "state": trained.state,
        "keep": trained.keep,
        "history": trained.history,
        "events": trained.events,
        "result": {
            "sparsity": counts.sparsity,
            "kept": counts.kept,
            "total": counts.total,
            "validation_accuracy": trained.validation_accuracy,
            "test_accuracy": trainer.accuracy(model.to(trainer.fabric.device), test),
            "epochs": trained.epochs,
            "steps": trained.steps,
            "rehearsed": trained.rehearsed,
            "seconds": trained.seconds,
        },
    }
