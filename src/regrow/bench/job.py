"""What an arm is asked to do, what its training leaves, and the learning rate over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regrow.engine.program import Program
from regrow.engine.pruning import Pruning

Hook = Callable[[nn.Module, torch.optim.Optimizer, Pruning], None]


class Paused(Exception):
    """Training was stopped on time, at a checkpoint; run the job again to go on."""


@dataclass(frozen=True)
class Job:
    """One arm to train.

    Attributes:
        arm: its name in records.
        start: the initial weights, or None for the task's own initialisation.
        program: what prunes it; None trains densely.
        cycles: epochs of each learning-rate cycle, the same for all arms of a comparison.
        epochs: the most epochs, at most the sum of the cycles.
        lr: the peak of each cycle.
        hook: for experiments, called with model, optimiser and pruning handle right after the
            handle was made, on a fresh start and again on every resumption. What it changes and
            the checkpoint does not hold (`Trainer.run` says what it holds) is its own to restore.
    """

    arm: str
    start: dict[str, Tensor] | None
    program: Program | None
    cycles: tuple[int, ...]
    epochs: int
    lr: float
    hook: Hook | None = None


@dataclass
class Trained:
    """What training left: the weights chosen on validation data, masks and the story.

    Attributes:
        state: the model's state dict, on the CPU.
        keep: keep masks by clean name, or None for a dense arm.
        epochs, steps: spent.
        rehearsed: steps spent in rehearsals besides, whose outcome was given up.
        seconds: of training and validation, over all interruptions.
        validation_accuracy: of the chosen weights.
        history: one dict per epoch.
        events: the mask events.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    keep: dict[str, Tensor] | None = None
    epochs: int = 0
    steps: int = 0
    rehearsed: int = 0
    seconds: float = 0.0
    validation_accuracy: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


def learning_rate(progress: float, cycles: Sequence[int], peak: float) -> float:
    """One-cycle learning rate at a time in epochs, restarted at each cycle.

    Linear from a tenth of the peak over the first fifth of a cycle, then cosine to zero; zero
    after the last cycle.
    """
    length = cycles[0]
    for following in cycles[1:]:
        if progress < length:
            break
        progress, length = progress - length, following
    share = min(progress / length, 1.0)
    if share < 0.2:
        return peak * (0.1 + 0.9 * share / 0.2)
    return peak * 0.5 * (1 + math.cos(math.pi * (share - 0.2) / 0.8))


def settled(program: Program, epoch: int, batches: int) -> bool:
    """Whether a program of fixed length has made its last event by the end of an epoch.

    Args:
        program: whose stages last so many epochs.
        epoch: counted from 0; its own end brings events that it has not seen.
        batches: steps per epoch.
    """
    inside = epoch - sum(stage.length.value for stage in program.stages[:-1] if stage.length)
    last = getattr(program.stages[-1].plan.schedule, "last", None)
    if last is None or inside < 0:
        return False
    passed: int = inside if last.unit == "epoch" else (inside + 1) * batches
    return bool(passed >= last.value)
