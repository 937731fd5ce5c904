"""What the optimiser steps on, where that is not what the network uses."""

from __future__ import annotations

from types import FrameType
from typing import Any

from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.memory import put_away, recall
from regrow.engine.occasion import Occasion
from regrow.engine.perform import project
from regrow.engine.progress import Progress


class Outermost:
    """Tells which of nested calls of one optimiser's step is the outermost.

    PyTorch calls an optimiser's hooks for the step of its class, and again for that of a parent
    which this one calls. Frames tell which is which; that of a step that raised is on no stack.
    """

    def __init__(self) -> None:
        self._frame: FrameType | None = None

    def begins(self, caller: FrameType) -> bool:
        """Whether what calls the hook before a step is the outermost."""
        if self._has(caller):
            return False
        self._frame = caller
        return True

    def ends(self, caller: FrameType) -> bool:
        """Whether what calls the hook after a step is the outermost."""
        if caller is not self._frame and self._has(caller.f_back):
            return False
        self._frame = None
        return True

    def _has(self, frame: FrameType | None) -> bool:
        if self._frame is None:
            return False
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None


def before_step(on: Occasion, at: Progress, speed: float, arguments: tuple[Any, ...]) -> None:
    """Write remembered or trained weights into the network, for a step that updates them.

    Args:
        on, at: the live network, and where its program stands.
        speed: of the updates of remembered weights.
        arguments: of the optimiser's step.

    Raises:
        RegrowError: a closure would see the network so.
    """
    if not speed and at.latent is None:
        return
    if any(given is not None for given in arguments):
        raise RegrowError(
            "with a memory that learns or a reparametrisation, weights have other values inside "
            "the optimiser's step, so a closure would see another network; call step() without one."
        )
    if at.latent is None:
        recall(on.weights, at.away)
    else:
        at.latent.before_step(on.optimizer)


def after_step(on: Occasion, at: Progress, speed: float, length: Step | None) -> None:
    """Write what the network uses again: zeros for what is removed.

    Args:
        on, at, speed: as before the step.
        length: of the stage.
    """
    if at.latent is not None:
        assert length is not None
        passed = at.epoch if length.unit == "epoch" else at.iteration
        at.latent.after_step(passed / length.value)
        return
    if speed:
        put_away(on.weights, at.masks, at.away, speed)
    project(on.weights, at.masks)
