"""Where a program stands: everything that changes while it runs, as plain data and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.maskset import MaskSet
from regrow.engine.gather import check_state
from regrow.engine.plan import Program

FORMAT = 1


@dataclass
class Progress:
    """The state of a program in progress.

    Attributes:
        masks: the present keep masks.
        states: state dicts of the remembered networks, by "dense" and "reference".
        stage: index of the present stage.
        epoch, iteration: passed in this stage.
        total: passed in all, by unit.
        done: the program has ended.
        signal: state of a signal-driven schedule.
        best: the best weights since its last cut.
        events: the log of mask events.
    """

    masks: MaskSet
    states: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    stage: int = 0
    epoch: int = 0
    iteration: int = 0
    total: dict[str, int] = field(default_factory=lambda: {"epoch": 0, "iteration": 0})
    done: bool = False
    signal: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Tensor] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)


def capture(at: Progress, program: Program) -> dict[str, Any]:
    """Tensors and plain data only, so that `torch.load(..., weights_only=True)` reads it."""
    plain = {
        **vars(at),
        "states": {which: dict(state) for which, state in at.states.items()},
        "total": dict(at.total),
        "events": list(at.events),
        "masks": at.masks.state_dict(),
    }
    return {
        "format": FORMAT,
        "program": program.to_json(),
        "checksum": at.masks.checksum(),
        "progress": plain,
    }


def restore(
    saved: Mapping[str, Any],
    program: Program,
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
) -> Progress:
    """The inverse of `capture`, for a model whose own state has been loaded already.

    Raises:
        RegrowError: the state is of another format, program or model, or was altered.
    """
    if saved.get("format") != FORMAT:
        raise RegrowError(
            f"this pruning state has format {saved.get('format')!r}, this regrow reads {FORMAT}; "
            "resume with the version that wrote it."
        )
    if saved["program"] != program.to_json():
        raise RegrowError(
            "the checkpoint was written by another program (recipe, parameters or seed differ); "
            "build the same program, or start anew without resume."
        )
    plain = dict(saved["progress"])
    masks = MaskSet.from_state(plain.pop("masks"), weights)
    if masks.checksum() != saved["checksum"]:
        raise RegrowError("the checkpoint's masks do not match their checksum; it was altered.")
    for name, weight in weights.items():
        if bool(weight.detach()[masks.removed(name)].any()):
            raise RegrowError(
                f"{name} has values where the checkpoint's masks removed them; load the model's "
                "and the optimiser's own states before attach(resume=...)."
            )
    for which, state in plain["states"].items():
        check_state(model, state, f"checkpoint's {which}")
    return Progress(masks, **{**plain, "total": dict(plain["total"]), "events": [*plain["events"]]})
