"""What must happen before the optimiser is built, and what must hold before any training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from regrow.core.budget import kept_count
from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.core.names import unwrap
from regrow.core.step import START, Step
from regrow.engine.best_units import check_reach
from regrow.engine.event import feasible, scope
from regrow.engine.gather import check_memory
from regrow.engine.groups import Groups
from regrow.engine.neighbours import neighbours_for
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage, sparsities
from regrow.engine.shrink import find_groups
from regrow.engine.unit_plan import UnitPlan
from regrow.model.collect import evaluation
from regrow.model.coupling.groups import call
from regrow.model.coupling.nests import tensors_of
from regrow.model.inventory import Inventory, check_finite, inventory, weights_of


def prepare(model: nn.Module, program: Program, example: Any = None) -> nn.Module:
    """Check that a program fits a model, and make the model ready for it.

    Call it before the optimiser is built. The programs of today rewrite nothing, so the model
    comes back as it is; those that add exits or gates will return it rewritten.

    Args:
        model: the dense network.
        program: from a recipe.
        example: one batch of inputs, a tensor or a tuple of arguments; when given, a forward pass
            is tried. Programs that cut units, or go by neighbouring layers, need it.

    Raises:
        RegrowError: there is nothing to prune, a weight is not finite, a layer does not fit the
            pattern, a target is infeasible, or the example does not fit the model.
    """
    fit(model, program, example, has_reference=True)
    return model


def fit(model: nn.Module, program: Program, example: Any, *, has_reference: bool) -> Groups | None:
    """What `prepare` checks; gives the groups that the program cuts, if it cuts any.

    Args:
        model, program, example: as for `prepare`.
        has_reference: whether a reference network will be there from the start.

    Raises:
        RegrowError: see `prepare` and `validate`.
    """
    inner = unwrap(model)
    groups = groups_for(program, inner, example)
    entries = validate(inner, program, has_reference=has_reference, groups=groups)
    neighbours_for([stage.plan for stage in program.stages], inner, entries, example)
    if example is not None:
        try:
            with evaluation(model), torch.no_grad():
                call(model, example)
        except (RuntimeError, TypeError, ValueError) as error:
            shapes = [tuple(given.shape) for given in tensors_of(example)]
            raise RegrowError(
                f"the example {shapes} does not fit {type(model).__name__}: {error}."
            ) from error
    return groups


def groups_for(program: Program, model: nn.Module, example: Any) -> Groups | None:
    """The groups that a program cuts in a network; None where it cuts weights one by one.

    Raises:
        RegrowError: there is no example, or nothing to cut; see also `find_groups`.
    """
    plan = program.stages[0].plan
    if not isinstance(plan, UnitPlan):
        return None
    if example is None:
        raise RegrowError(
            "a program that cuts channels and heads reads from a run of the network what belongs "
            "together; pass example=, one batch of inputs."
        )
    found = find_groups(model, example, exclude=plan.exclude).only(plan.include)
    if not len(found):
        reasons = "; ".join(f"{each.layer}: {each.reason}" for each in found.bound[:3])
        raise RegrowError(f"there are no units to cut ({reasons or 'no layers'}).")
    return found


def validate(
    model: nn.Module, program: Program, *, has_reference: bool, groups: Groups | None = None
) -> Inventory:
    """The model's inventory, once every stage has been found feasible on it.

    Args:
        model: the network.
        program: what shall be done.
        has_reference: whether a reference network is there from the start.
        groups: of `groups_for`.

    Raises:
        RegrowError: see `prepare`; also when a rule asks for a reference network and there is
            none.
    """
    entries = inventory(model)
    weights = weights_of(model, entries)
    check_finite(weights)
    reached = 0.0
    for stage in program.stages:
        plan = stage.plan
        if isinstance(plan, Plan):
            cut = Inventory(scope(plan, entries))
            check_memory(plan.needs, cut, weights_of(model, cut))
        if isinstance(plan, UnitPlan):
            assert groups is not None
            for sparsity in sparsities(plan.schedule):
                check_reach(groups, sparsity, plan.pattern, plan.floor)
            continue
        chosen = frozenset(entry.name for entry in scope(plan, entries))
        for sparsity in sparsities(plan.schedule):
            if sparsity > 0:
                # Of an event's rounds the first keeps the most, and the last the least.
                first = plan.steps(1.0 - reached, 1.0 - sparsity)[0]
                for density in dict.fromkeys((1.0 - sparsity, first)):
                    feasible(plan, entries, density)
            if sparsity < reached and plan.regrowth is not None:
                _check_room(plan, entries, chosen, reached, sparsity)
            reached = sparsity
        if any(need.of == "reference" for need in plan.needs) and not has_reference:
            raise RegrowError(
                "the regrowth asks for a reference network: give the recipe a reference sparsity "
                "(reference=0.9), mark an earlier stage with keep_reference, or pass "
                "attach(reference=state_dict)."
            )
        has_reference = has_reference or stage.keep_reference
    return entries


def check_lasted(stage: Stage, where: str, epochs: int, iterations: int) -> None:
    """Refuse the end of a stage before the last event of its schedule.

    Epochs and iterations can be compared only once both have been counted.

    Raises:
        RegrowError: the event is still to come.
    """
    last = getattr(stage.plan.schedule, "last", START)
    passed = epochs if last.unit == "epoch" else iterations
    if passed < last.value:
        raise RegrowError(
            f"{where} has lasted its {stage.length}, but the last event of its schedule falls on "
            f"{last} and only {Step(passed, last.unit)} have passed; make the stage longer or the "
            "schedule shorter."
        )


def _check_room(
    plan: Plan, entries: Inventory, chosen: frozenset[str], before: float, after: float
) -> None:
    assert plan.regrowth is not None
    candidates = entries.matching(plan.regrowth.layers) & chosen
    room = sum(
        plan.pattern.capacity(e.shape) * plan.pattern.size(e.shape)
        for e in entries
        if e.name in candidates
    )
    sizes = {plan.pattern.size(e.shape) for e in entries if e.name in chosen}
    if len(sizes) > 1 and Need("trial") in plan.regrowth.needs:
        raise RegrowError(
            f"layer budgets can be learned by trial only where all units are of one size; those "
            f"of this pattern hold {sorted(sizes)} weights. Take a pattern of fixed size, or "
            "another allocation."
        )
    returning = kept_count(entries.total, 1 - after) - kept_count(entries.total, 1 - before)
    if returning > room:
        raise RegrowError(
            f"{returning} weights should return when the sparsity falls from {before:g} to "
            f"{after:g}, but the candidate layers hold only {room}; name more of them."
        )
