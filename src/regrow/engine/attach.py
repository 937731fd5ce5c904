"""Starting a program on a model and its optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.names import unwrap
from regrow.engine.event import scope
from regrow.engine.gather import (
    Source,
    check_copies,
    check_state,
    clone_state,
    remembered,
)
from regrow.engine.neighbours import neighbours_for
from regrow.engine.occasion import Occasion, Rehearse, check_rehearse
from regrow.engine.optimizer_state import check_owns
from regrow.engine.prepare import groups_for, validate
from regrow.engine.program import Program
from regrow.engine.progress import Progress, restore, start
from regrow.engine.pruning import HELD, Pruning
from regrow.engine.unit_plan import UnitPlan
from regrow.model.collect import LossFn
from regrow.model.inventory import Inventory, check_finite, weights_of


def attach(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    program: Program,
    *,
    loss_fn: LossFn | None = None,
    data: Iterable[Any] | None = None,
    batches: int | None = 64,
    evaluate: Callable[[nn.Module], float] | None = None,
    reference: Mapping[str, Tensor] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    resume: Mapping[str, Any] | None = None,
    rehearse: Rehearse | None = None,
    example: Any = None,
) -> Pruning:
    """Start a program on a model; call it after the optimiser has been built.

    Weights stay ordinary parameters that hold true zeros: a hook after every optimiser step
    zeroes removed entries again, so state-dict keys, the model's class and the loop stay as they
    are and gradients stay dense. Events that are due at the start happen here.

    Args:
        model: the network, dense as yet; compiled or wrapped in DDP is fine.
        optimizer: updates the network's weights; any that keeps state of the weights' shapes.
        program: from a recipe or composed by hand.
        loss_fn: `loss_fn(model, batch)`, a scalar; needed by gradient and activation evidence.
        data: batches for it, usually the training loader.
        batches: how many of them one collection reads; None reads all.
        evaluate: `evaluate(model)`, the value of the signal that a patience schedule watches,
            measured right after each cut. Optional.
        reference: state dict of a less sparse network, for rules that ask for one.
        masks: keep masks to start from, for a network that has been pruned already, such as
            `load_masks` of its file; by default everything is kept.
        resume: the handle's `state_dict()` from a checkpoint; load the model's and optimiser's
            own first.
        rehearse: `rehearse(model)` fine-tunes the model briefly with the same optimiser and
            returns a score, the same on all ranks; needed where layer budgets are learned by
            trial. Weights, optimiser state and random streams are put back after it.
        example: one batch of inputs, a tensor or a tuple of arguments; needed by programs that cut
            channels and heads, which read from it what belongs together, by criteria that go by
            neighbouring layers, and by scores of synaptic flow, which take its shape.

    Returns:
        the handle; call `epoch_end` after every epoch and `finalize` at the end.

    Raises:
        RegrowError: the program does not fit the model, evidence is asked for but `loss_fn`,
            `data`, `example` or `reference` is missing, `masks` or `resume` are of another model or
            program, or another handle holds the optimiser.
    """
    if optimizer in HELD:
        raise RegrowError(
            "this optimiser is held by another pruning handle; call its finalize() or detach() "
            "first."
        )
    inner = unwrap(model)
    groups = groups_for(program, inner, example)
    entries = validate(inner, program, has_reference=reference is not None, groups=groups)
    plan = program.stages[0].plan
    if isinstance(plan, UnitPlan):
        assert groups is not None
        prunable = groups.members(inner)
        masked = entries.joined(prunable)
    else:
        prunable, masked = Inventory(scope(plan, entries)), entries
    weights = weights_of(inner, masked)
    check_owns(optimizer, weights_of(inner, prunable))
    plans = [stage.plan for stage in program.stages]
    around = neighbours_for(plans, inner, entries, example)
    source = Source(loss_fn, data, batches, example, around)
    source.check(program.needs)
    check_copies(program.needs, inner)
    check_rehearse(program.needs, rehearse)
    on = Occasion(inner, entries, masked, weights, optimizer, source, rehearse, groups)
    if resume is not None:
        at = restore(resume, program, inner, weights)
        return Pruning(program, on, evaluate, at)
    if masks is not None and groups is not None:
        masks = {**masks, **groups.masks(groups.units(masks), weights)}
    first = start(weights, masks, program)
    at = Progress(first, first)
    wanted = remembered(program.needs)
    if "dense" in wanted:
        at.states["dense"] = clone_state(inner)
    if reference is not None and "reference" in wanted:
        check_state(inner, reference, "reference")
        check_finite({entry.name: reference[entry.name] for entry in entries})
        at.states["reference"] = {n: t.detach().clone() for n, t in reference.items()}
    handle = Pruning(program, on, evaluate, at)
    try:
        handle.begin()
    except BaseException:
        handle.detach()
        raise
    return handle
