"""The handle's state as plain data and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regrow.core.errors import RegrowError
from regrow.core.maskset import MaskSet
from regrow.engine.gather import check_state

if TYPE_CHECKING:
    from regrow.engine.attach import Pruning

FORMAT = 1


def capture(handle: Pruning) -> dict[str, Any]:
    """See `Pruning.state_dict`."""
    return {
        "format": FORMAT,
        "program": handle.program.to_json(),
        "stage": handle._stage,
        "epoch": handle._epoch,
        "iteration": handle._iteration,
        "total": dict(handle._total),
        "done": handle.done,
        "signal": handle._signal,
        "masks": handle.masks.state_dict(),
        "checksum": handle.masks.checksum(),
        "states": {which: dict(state) for which, state in handle._states.items()},
        "best": handle._best,
        "events": list(handle.events),
    }


def restore(handle: Pruning, state: Mapping[str, Any]) -> None:
    """Put a handle where `capture` found it.

    Raises:
        RegrowError: the state is of another format, program or model, or was altered.
    """
    if state.get("format") != FORMAT:
        raise RegrowError(
            f"this pruning state has format {state.get('format')!r}, this regrow reads {FORMAT}; "
            "resume with the version that wrote it."
        )
    if state["program"] != handle.program.to_json():
        raise RegrowError(
            "the checkpoint was written by another program (recipe, parameters or seed differ); "
            "build the same program, or start anew without resume."
        )
    handle.masks = MaskSet.from_state(state["masks"], handle._weights)
    if handle.masks.checksum() != state["checksum"]:
        raise RegrowError("the checkpoint's masks do not match their checksum; it was altered.")
    for name, weight in handle._weights.items():
        if bool(weight.detach()[handle.masks.removed(name)].any()):
            raise RegrowError(
                f"{name} has values where the checkpoint's masks removed them; load the model's "
                "and the optimiser's own states before attach(resume=...)."
            )
    for which, saved in state["states"].items():
        check_state(handle._model, saved, f"checkpoint's {which}")
    handle._states = {which: dict(saved) for which, saved in state["states"].items()}
    handle._stage, handle._epoch = state["stage"], state["epoch"]
    handle._iteration, handle._total = state["iteration"], dict(state["total"])
    handle.done, handle._signal = state["done"], state["signal"]
    handle._best, handle.events = state["best"], list(state["events"])
