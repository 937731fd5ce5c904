"""The shortest way in: one call, one cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from regrow.core.budget import kept_count
from regrow.core.errors import RegrowError
from regrow.core.maskset import MaskSet
from regrow.core.names import unwrap
from regrow.engine.event import decide, feasible, scope
from regrow.engine.gather import Source, gather
from regrow.engine.neighbours import neighbours_for
from regrow.engine.perform import perform
from regrow.engine.plan import Plan
from regrow.engine.regrowth import globs
from regrow.model.collect import LossFn
from regrow.model.inspection import Inspection, inspect
from regrow.model.inventory import Inventory, check_finite, inventory, weights_of
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.allocate.explicit import Explicit
from regrow.parts.criteria import CRITERIA
from regrow.parts.patterns import PATTERNS
from regrow.parts.repair import REPAIRS
from regrow.parts.schedule.one_shot import OneShot


def prune(
    model: nn.Module,
    sparsity: float | Mapping[str, float],
    *,
    criterion: Any = "magnitude",
    allocation: Any = "global",
    pattern: Any = "element",
    repair: Any = None,
    include: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] = (),
    floor: int = 1,
    loss_fn: LossFn | None = None,
    data: Iterable[Any] | None = None,
    batches: int | None = 64,
    example: Any = None,
    rounds: int = 1,
    seed: int = 0,
) -> Inspection:
    """Cut a model once, in place: removed weights become true zeros.

    To train on and keep the zeros, use `attach`, which also projects after every step.

    Args:
        model: any network with convolution or linear layers.
        sparsity: the fraction removed of all convolution and linear weights, in [0, 1), met to
            the unit; or a mapping from layer globs to sparsities, "*" last.
        criterion, allocation, pattern: a part, its name, or a table with "name" and options; see
            `regrow list`.
        repair: how the weights that stay move, a part as above; None leaves them.
        include, exclude: globs of layers; excluded ones stay whole and still count.
        floor: the least number of units that stay in a layer.
        loss_fn, data, batches: for criteria that need gradients, as in `attach`.
        example: one batch of inputs, for criteria that need its shape or go by neighbouring
            layers.
        rounds: in how many steps, with evidence collected anew before each (see `Plan`); if the
            user's loss fails in a later one, what the earlier ones cut is gone.
        seed: for random criteria.

    Returns:
        the counts after the cut; print it.

    Raises:
        RegrowError: before anything is written, when the request is infeasible or unsound.
    """
    entries = inventory(model)
    if isinstance(sparsity, Mapping):
        if allocation != "global":
            raise RegrowError("sparsities by layer are an allocation of their own; leave it out.")
        allocation = explicit = Explicit(tuple(sparsity.items()))
        names = entries.matching(globs(include)) - entries.matching(globs(exclude))
        chosen = tuple(entry for entry in entries if entry.name in names)
        whole = entries.total - sum(entry.numel for entry in chosen)
        sparsity = 1 - (whole + sum(explicit.kept(chosen).values())) / entries.total
    plan = Plan(
        schedule=OneShot(sparsity),
        criterion=CRITERIA.build(criterion),
        allocation=ALLOCATIONS.build(allocation),
        pattern=PATTERNS.build(pattern),
        include=globs(include),
        exclude=globs(exclude),
        floor=floor,
        rounds=rounds,
        repair=None if repair is None else REPAIRS.build(repair),
    )
    if any(need.kind == "damage" for need in plan.needs):
        raise RegrowError(
            "this allocation goes by the damage of an earlier cut, and a single cut has none; "
            "choose another, such as 'global' or 'erk'."
        )
    densities = plan.steps(1.0, 1 - sparsity)
    for density in dict.fromkeys((densities[-1], densities[0])):
        feasible(plan, entries, density)
    weights = weights_of(model, entries)
    check_finite(weights)
    masks = MaskSet({name: weight.detach() != 0 for name, weight in weights.items()})
    present = sum(masks.kept.values())
    if present < kept_count(entries.total, 1 - sparsity):
        raise RegrowError(
            f"sparsity {sparsity:g} was asked for, but the model is at "
            f"{1 - present / entries.total:.4f} already; ask for more, or grow back with attach."
        )
    cut = Inventory(scope(plan, entries))
    around = neighbours_for([plan], model, entries, example)
    source = Source(loss_fn, data, batches, example, around)
    for number, density in enumerate(densities):
        evidence = gather(
            plan.needs_to_cut,
            unwrap(model),
            cut,
            {},
            source,
            (seed, 0, *([number] if number else [])),
            "running",
            {name: weight.detach() != 0 for name, weight in weights.items()},
        )
        decision = decide(plan, entries, masks, density, evidence)
        masks, _ = perform(decision, weights, masks, None, entries)
    return inspect(model, masks=masks)
