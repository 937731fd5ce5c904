"""Where a program stands: everything that changes while it runs, as plain data and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError, unknown
from regrow.core.maskset import MaskSet
from regrow.engine.gather import check_state
from regrow.engine.latent import Latent
from regrow.engine.program import Program

FORMAT = 5


@dataclass
class Progress:
    """The state of a program in progress.

    Attributes:
        masks: the present keep masks.
        explored: the union of all masks since training began.
        states: state dicts of the remembered networks, by "dense" and "reference".
        stage: index of the present stage.
        epoch, iteration: passed in this stage.
        total: passed in all, by unit.
        done: the program has ended.
        density: the last target reached; None before the first.
        due: target and exchange of an event that failed and is tried again.
        signal: state of a signal-driven schedule.
        best: the best weights since its last cut.
        events: the log of mask events.
        away: values of removed weights, for plans with a memory; zero where a weight lives.
        pending: what shall be kept of the weights that a penalty's choice was about; None before
            that choice, and after the removal.
        latent: what a reparametrisation keeps, in stages that have one.
        rehearsing: a trial of a regrowth is under way, whose steps are not the program's.
    """

    masks: MaskSet
    explored: MaskSet
    states: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    stage: int = 0
    epoch: int = 0
    iteration: int = 0
    total: dict[str, int] = field(default_factory=lambda: {"epoch": 0, "iteration": 0})
    done: bool = False
    density: float | None = None
    due: tuple[float, float] | None = None
    signal: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Tensor] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    away: dict[str, Tensor] = field(default_factory=dict)
    pending: MaskSet | None = None
    latent: Latent | None = None
    rehearsing: bool = False


def start(
    weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor] | None, program: Program
) -> MaskSet:
    """The masks to begin with: the given ones, or everything kept.

    Raises:
        RegrowError: a mask is missing, of another shape or not boolean, or of a weight that the
            network lacks; a removed entry has a value; or the program begins with a memory of
            removed weights, whose values are not there.
    """
    if masks is None:
        return MaskSet({n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()})
    if program.stages[0].plan.reparam is not None:
        raise RegrowError(
            "the program decides anew at every step which weights are zero, and would not keep "
            "those that masks= removed; start it without masks."
        )
    if program.stages[0].plan.memory is not None:
        raise RegrowError(
            "the program remembers removed weights, but those that masks= removed have no values "
            "to remember; start it from the dense network, or without memory."
        )
    for name in masks:
        if name not in weights:
            raise unknown("weight of a mask", name, weights)
    for name, weight in weights.items():
        if name not in masks or masks[name].shape != weight.shape:
            raise RegrowError(f"the masks are of another model: {name} has none of its shape.")
        if masks[name].dtype != torch.bool:
            raise RegrowError(
                f"the mask of {name} is of {masks[name].dtype}; give booleans, as mask != 0."
            )
        if bool(weight.detach()[~masks[name].to(weight.device)].any()):
            raise RegrowError(
                f"{name} has values where the masks removed them; load the pruned weights first."
            )
    return MaskSet({name: masks[name].to(weight.device) for name, weight in weights.items()})


def capture(at: Progress, program: Program) -> dict[str, Any]:
    """Tensors and plain data only, so that `torch.load(..., weights_only=True)` reads it."""
    plain = {
        **vars(at),
        "states": {which: dict(state) for which, state in at.states.items()},
        "total": dict(at.total),
        "events": list(at.events),
        "away": {name: values.clone() for name, values in at.away.items()},
        "masks": at.masks.state_dict(),
        "pending": at.pending and at.pending.state_dict(),
        "latent": at.latent and at.latent.state_dict(),
        "explored": at.explored.state_dict(),
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
    if saved.get("program") != program.to_json():
        raise RegrowError(
            "the checkpoint was written by another program (recipe, parameters or seed differ); "
            "build the same program, or start anew without resume."
        )
    plain = dict(saved.get("progress", {}))
    names = {f.name for f in fields(Progress)}
    if plain.keys() != names or not 0 <= plain["stage"] < len(program.stages):
        raise RegrowError(
            "this pruning state is incomplete or was altered: it lacks or adds "
            f"{sorted(plain.keys() ^ names) or 'nothing, but its stage is unknown'}."
        )
    masks = MaskSet.from_state(plain.pop("masks"), weights)
    explored = MaskSet.from_state(plain.pop("explored"), weights)
    if masks.checksum() != saved.get("checksum"):
        raise RegrowError("the checkpoint's masks do not match their checksum; it was altered.")
    reparametrised = set((plain["latent"] or {}).get("trained", ()))
    for name, weight in weights.items():
        if name not in reparametrised and bool(weight.detach()[masks.removed(name)].any()):
            raise RegrowError(
                f"{name} has values where the checkpoint's masks removed them; load the model's "
                "and the optimiser's own states before attach(resume=...)."
            )
    for which, state in plain["states"].items():
        check_state(model, state, f"checkpoint's {which}")
    for name, values in plain["away"].items():
        if name not in weights or values.shape != weights[name].shape:
            raise RegrowError(
                f"the checkpoint remembers values of {name}, which the model lacks or has in "
                "another shape; resume with the model that the checkpoint is of."
            )
    if plain["pending"] is not None:
        chosen = {name: weights[name] for name in plain["pending"] if name in weights}
        plain["pending"] = MaskSet.from_state(plain["pending"], chosen)
    if plain["latent"] is not None:
        how = program.stages[plain["stage"]].plan.reparam
        assert how is not None
        learned = {name: weights[name] for name in plain["latent"]["trained"] if name in weights}
        latent = Latent(how, learned)
        latent.load_state_dict(plain["latent"])
        plain["latent"] = latent
    # Copies: a memory that learns writes into them, and the checkpoint is the caller's.
    plain["away"] = {n: v.to(weights[n].device, copy=True) for n, v in plain["away"].items()}
    plain |= {"total": dict(plain["total"]), "events": [*plain["events"]]}
    return Progress(masks, explored, **plain)
