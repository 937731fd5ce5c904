"""One event, always in one order: score, pool, count, select, regrow. Pure: nothing is written."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from regrow.core.budget import Budget, kept_count
from regrow.core.decision import Decision
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence
from regrow.core.protocols import Allocation, Criterion
from regrow.engine.plan import Plan, Regrowth
from regrow.model.inventory import Entry, Inventory


def scope(plan: Plan, entries: Inventory) -> tuple[Entry, ...]:
    """The entries that the plan may prune.

    Raises:
        RegrowError: a glob matches nothing, nothing is left, or a weight does not fit the pattern.
    """
    names = entries.matching(plan.include) - entries.matching(plan.exclude)
    chosen = tuple(e for e in entries if e.name in names)
    if not chosen:
        raise RegrowError("include and exclude leave no layer to prune; widen them.")
    for entry in chosen:
        plan.pattern.check(entry.name, entry.shape)
    return chosen


def decide(
    plan: Plan,
    entries: Inventory,
    masks: Mapping[str, Tensor],
    density: float,
    evidence: Evidence,
) -> Decision:
    """What shall be kept at a density of all convolution and linear weights.

    The kept count is round((1 - sparsity) N), to the unit of the pattern. Below the present
    density only living weights compete; above it all living weights stay and removed ones return.

    Args:
        plan: the parts.
        entries: the network's inventory; N is its total.
        masks: the present keep masks of all entries.
        density: the target, a fraction of N; layers outside the scope count as kept.
        evidence: everything in `plan.needs`.

    Raises:
        RegrowError: the target is infeasible, a score is NaN, or weights should return and the
            plan has no regrowth.
    """
    chosen = scope(plan, entries)
    outside = entries.total - sum(e.numel for e in chosen)
    target = kept_count(entries.total, density) - outside
    alive = {e.name: masks[e.name] for e in chosen}
    if target > sum(int(mask.sum()) for mask in alive.values()):
        if plan.regrowth is None:
            raise RegrowError(
                f"the target density {density:g} is above the present one, but the plan has no "
                "regrowth; name a rule."
            )
        return _regrow(plan, plan.regrowth, chosen, alive, target, evidence, entries)
    scores = _scores(plan.criterion, chosen, evidence)
    pooled = {
        e.name: plan.pattern.pool(scores[e.name].masked_fill(~alive[e.name], -torch.inf))
        for e in chosen
    }
    lower, upper = _bounds(plan, chosen, pooled)
    counts = _counts(plan, plan.allocation, chosen, pooled, lower, upper, target, evidence)
    keep = _select(plan, chosen, pooled, counts)
    # A unit may hold entries that were removed one by one before: those stay removed.
    return Decision({name: mask & alive[name] for name, mask in keep.items()})


def feasible(plan: Plan, entries: Inventory, density: float) -> None:
    """Refuse a target that the pattern, floors or allocation cannot meet, before any training.

    Raises:
        RegrowError: as `decide` would raise it.
    """
    chosen = scope(plan, entries)
    outside = entries.total - sum(e.numel for e in chosen)
    target = kept_count(entries.total, density) - outside
    if target < 0:
        raise RegrowError(
            f"sparsity {1 - density:g} is out of reach: the layers outside the scope hold "
            f"{outside} of {entries.total} weights; exclude fewer or prune less."
        )
    like = {e.name: torch.zeros(1).expand(e.numel // plan.pattern.size(e.shape)) for e in chosen}
    lower, upper = _bounds(plan, chosen, like)
    upper = {e.name: plan.pattern.capacity(e.shape) for e in chosen}
    evidence = Evidence({}, damage=dict.fromkeys(like, 0.0))
    _counts(plan, plan.allocation, chosen, like, lower, upper, target, evidence)


def _regrow(
    plan: Plan,
    grow: Regrowth,
    chosen: tuple[Entry, ...],
    alive: Mapping[str, Tensor],
    target: int,
    evidence: Evidence,
    entries: Inventory,
) -> Decision:
    scores = _scores(grow.rule, chosen, evidence)
    # Living weights come first whatever the rule says, so the old mask is inside the new one.
    pooled = {
        e.name: plan.pattern.pool(scores[e.name].masked_fill(alive[e.name], torch.inf))
        for e in chosen
    }
    lower = {name: int((p == torch.inf).sum()) for name, p in pooled.items()}
    _, upper = _bounds(plan, chosen, pooled)
    allowed = _candidates(plan, grow, chosen, lower, upper, target, evidence, entries)
    upper = {n: most if n in allowed else lower[n] for n, most in upper.items()}
    counts = _counts(plan, grow.allocation, chosen, pooled, lower, upper, target, evidence)
    keep = _select(plan, chosen, pooled, counts)
    delta: dict[str, Tensor] = {}
    for entry in chosen:
        values = grow.value.values(entry, evidence)
        if values is not None:
            delta[entry.name] = values * (keep[entry.name] & ~alive[entry.name])
    return Decision(keep, delta or None)


def _candidates(
    plan: Plan,
    grow: Regrowth,
    chosen: tuple[Entry, ...],
    lower: Mapping[str, int],
    upper: Mapping[str, int],
    target: int,
    evidence: Evidence,
    entries: Inventory,
) -> frozenset[str]:
    named = entries.matching(grow.layers) & {e.name for e in chosen}
    if grow.ssim_below is None:
        return named
    damage = evidence.damage or {}
    allowed: set[str] = set()
    sizes = {e.name: plan.pattern.size(e.shape) for e in chosen}
    if len(set(sizes.values())) == 1:  # The target is met to the unit, as in `_counts`.
        target = round(target / sizes[chosen[0].name]) * sizes[chosen[0].name]
    room = target - sum(lower[n] * size for n, size in sizes.items())
    for name in sorted(named, key=lambda n: damage[n]):
        if damage[name] >= grow.ssim_below and room <= 0:
            break
        allowed.add(name)
        room -= (upper[name] - lower[name]) * sizes[name]
    return frozenset(allowed)


def _scores(
    criterion: Criterion, chosen: tuple[Entry, ...], evidence: Evidence
) -> dict[str, Tensor]:
    scores = criterion.score(evidence)
    for entry in chosen:
        score = scores[entry.name]
        if torch.isnan(score).any():
            raise RegrowError(
                f"{type(criterion).__name__} gives {int(torch.isnan(score).sum())} NaN scores in "
                f"{entry.name} of shape {entry.shape}; the weights or the gradients are not sound."
            )
    return {entry.name: scores[entry.name] for entry in chosen}


def _bounds(
    plan: Plan, chosen: tuple[Entry, ...], pooled: Mapping[str, Tensor]
) -> tuple[dict[str, int], dict[str, int]]:
    upper = {e.name: int((pooled[e.name] > -torch.inf).sum()) for e in chosen}
    return {name: min(plan.floor, most) for name, most in upper.items()}, upper


def _counts(
    plan: Plan,
    allocation: Allocation,
    chosen: tuple[Entry, ...],
    pooled: Mapping[str, Tensor],
    lower: dict[str, int],
    upper: dict[str, int],
    target: int,
    evidence: Evidence,
) -> dict[str, int]:
    sizes = {e.name: plan.pattern.size(e.shape) for e in chosen}

    def counts(units: int) -> dict[str, int]:
        return allocation.counts(chosen, Budget(units, lower, upper), pooled, evidence)

    if len(set(sizes.values())) == 1:
        return counts(round(target / next(iter(sizes.values()))))
    # Units of unequal sizes: the most units whose weights do not exceed the target.
    low, high = sum(lower.values()), sum(upper.values())
    if sum(lower[n] * sizes[n] for n in sizes) > target:
        return counts(low - 1)  # Raises: fewer than the floors keep.
    if sum(upper[n] * sizes[n] for n in sizes) < target:
        return counts(high + 1)  # Raises: more than can be kept.
    while low < high:
        middle = (low + high + 1) // 2
        if sum(sizes[n] * c for n, c in counts(middle).items()) <= target:
            low = middle
        else:
            high = middle - 1
    return counts(low)


def _select(
    plan: Plan,
    chosen: tuple[Entry, ...],
    pooled: Mapping[str, Tensor],
    counts: Mapping[str, int],
) -> dict[str, Tensor]:
    return {
        e.name: plan.pattern.expand(plan.selector.select(pooled[e.name], counts[e.name]), e.shape)
        for e in chosen
    }
