"""One event, always in one order: score, pool, count, select, repair or regrow.

Pure: nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor

from regrow.core.budget import Budget, kept_count
from regrow.core.decision import Decision
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Allocation, Criterion, Telling
from regrow.core.topk import largest
from regrow.engine.plan import Plan
from regrow.engine.regrowth import Regrowth
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
    exchange: float = 0.0,
) -> Decision:
    """What shall be kept at a density of all convolution and linear weights.

    The kept count is round((1 - sparsity) N), to the unit of the pattern. Below the present
    density only living weights compete; above it all living weights stay and removed ones return.
    With a memory and no regrowth all weights compete, removed ones with the value remembered.

    Args:
        plan: the parts.
        entries: the network's inventory; N is its total.
        masks: the present keep masks of all entries.
        density: the target, a fraction of N; layers outside the scope count as kept.
        evidence: everything in `plan.needs`; where all compete, the weights are those remembered.
        exchange: the fraction of the living weights to cut beyond the target before regrowth;
            within layers, of what each layer has at the target.

    Raises:
        RegrowError: the target is infeasible, a score is NaN, or weights should return and the
            plan has no regrowth.
    """
    event = _Event(plan, entries, scope(plan, entries), density, evidence)
    alive = {e.name: masks[e.name] for e in event.chosen}
    if plan.competes:
        return event.compete(alive)
    living = sum(int(mask.sum()) for mask in alive.values())
    grow = plan.regrowth if exchange > 0 else None
    if grow is not None and grow.within == "network":
        base = min(living, event.target)
        # Floors hold in the deeper cut too: there is less to exchange near them.
        sizes = event.sizes
        least = sum(min(plan.floor * sizes[n], int(mask.sum())) for n, mask in alive.items())
        down = max(base - round(exchange * base), min(least, base)) + event.outside
        deeper = replace(event, density=down / entries.total).prune(alive)
        return event.regrow(grow, deeper.keep, before=alive)
    if event.target <= living:
        reached = event.prune(alive)
    elif plan.regrowth is not None:
        reached = event.regrow(plan.regrowth, alive)
    else:
        raise RegrowError(
            f"the target density {density:g} is above the present one, but the plan has no "
            "regrowth; name a rule."
        )
    return reached if grow is None else event.exchange(grow, reached.keep, exchange, alive)


def feasible(plan: Plan, entries: Inventory, density: float) -> None:
    """Refuse a target that the pattern, floors or allocation cannot meet, before any training.

    Raises:
        RegrowError: as `decide` would raise it.
    """
    chosen = scope(plan, entries)
    like = {e.name: torch.zeros(1).expand(e.numel // plan.pattern.size(e.shape)) for e in chosen}
    evidence = Evidence({}, damage=dict.fromkeys(like, 0.0))
    event = _Event(plan, entries, chosen, density, evidence)
    if event.target < 0:
        raise RegrowError(
            f"sparsity {1 - density:g} is out of reach: the layers outside the scope hold "
            f"{event.outside} of {entries.total} weights; exclude fewer or prune less."
        )
    upper = {e.name: plan.pattern.capacity(e.shape) for e in chosen}
    lower = {name: min(plan.floor, most) for name, most in upper.items()}
    event.counts(plan.allocation, like, lower, upper)


@dataclass(frozen=True)
class _Event:
    """What the steps of one event share."""

    plan: Plan
    entries: Inventory
    chosen: tuple[Entry, ...]
    density: float
    evidence: Evidence

    @property
    def outside(self) -> int:
        """Weights outside the scope, which stay."""
        return self.entries.total - sum(e.numel for e in self.chosen)

    @property
    def target(self) -> int:
        """Weights to keep inside the scope."""
        return kept_count(self.entries.total, self.density) - self.outside

    @property
    def sizes(self) -> dict[str, int]:
        """Weights per unit of each layer."""
        return {e.name: self.plan.pattern.size(e.shape) for e in self.chosen}

    def prune(self, alive: Mapping[str, Tensor]) -> Decision:
        cut = self.cutting(alive)
        scores = cut.scores(self.plan.criterion)
        best = self.best({n: s.masked_fill(~alive[n], -torch.inf) for n, s in scores.items()})
        # A unit may hold entries that were removed one by one before: those stay removed.
        keep = {name: mask & alive[name] for name, mask in best.items()}
        repair = self.plan.repair
        delta = repair.delta(self.evidence, alive, keep) if repair else None
        return Decision(keep, delta, cut.told(keep))

    def compete(self, alive: Mapping[str, Tensor]) -> Decision:
        cut = self.cutting({name: torch.ones_like(mask) for name, mask in alive.items()})
        keep = self.best(cut.scores(self.plan.criterion))
        remembered = self.evidence[Need("weight")]
        delta = {n: torch.where(keep[n] & ~alive[n], remembered[n], 0) for n in keep}
        return Decision(keep, delta, cut.told(keep))

    def cutting(self, alive: Mapping[str, Tensor]) -> _Event:
        """This event, its evidence telling how many weights it keeps of which."""
        return replace(self, evidence=replace(self.evidence, keep=self.target, alive=alive))

    def told(self, keep: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """What the criterion tells of a decision."""
        criterion = self.plan.criterion
        return criterion.told(self.evidence, keep) if isinstance(criterion, Telling) else None

    def best(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks of the best units by the plan's allocation and floor; -inf is never among them."""
        pooled = {n: self.plan.pattern.pool(s) for n, s in scores.items()}
        upper = _selectable(pooled)
        lower = {name: min(self.plan.floor, most) for name, most in upper.items()}
        return self.select(pooled, self.counts(self.plan.allocation, pooled, lower, upper))

    def exchange(
        self,
        grow: Regrowth,
        alive: Mapping[str, Tensor],
        exchange: float,
        before: Mapping[str, Tensor],
    ) -> Decision:
        """In every layer the worst units go, a share rounded up, and as many return."""
        pattern, scores = self.plan.pattern, self.scores(self.plan.criterion)
        living = {
            n: torch.zeros_like(s).masked_fill(~alive[n], -torch.inf) for n, s in scores.items()
        }
        units = _selectable({n: pattern.pool(s) for n, s in living.items()})
        pooled = {n: pattern.pool(s.masked_fill(~alive[n], -torch.inf)) for n, s in scores.items()}
        deeper = self.select(pooled, {n: k - ceil(exchange * k) for n, k in units.items()})
        return self.regrow(grow, deeper, before, units)

    def regrow(
        self,
        grow: Regrowth,
        alive: Mapping[str, Tensor],
        before: Mapping[str, Tensor] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Decision:
        # In an exchange a weight may be cut and return at once: it has never been away.
        before = before or alive
        pattern = self.plan.pattern
        scores = self.scores(grow.rule)
        # Living weights come first whatever the rule says, so the old mask is inside the new one.
        pooled = {n: pattern.pool(s.masked_fill(alive[n], torch.inf)) for n, s in scores.items()}
        if counts is None:
            lower = {name: int((p == torch.inf).sum()) for name, p in pooled.items()}
            upper = _selectable(pooled)
            allowed = self.candidates(grow, lower, upper)
            upper = {n: most if n in allowed else lower[n] for n, most in upper.items()}
            counts = self.counts(grow.allocation, pooled, lower, upper)
        keep = self.select(pooled, counts)
        delta: dict[str, Tensor] = {}
        for entry in self.chosen:
            values = grow.value.values(entry, self.evidence)
            if values is not None:
                back = keep[entry.name] & ~before[entry.name]
                delta[entry.name] = torch.where(back, values, 0)
        return Decision(keep, delta or None)

    def scores(self, criterion: Criterion) -> dict[str, Tensor]:
        every = criterion.score(self.evidence)
        scores = {e.name: every[e.name] for e in self.chosen}
        for name, score in scores.items():
            bad = int(torch.isnan(score).sum())
            if bad:
                raise RegrowError(
                    f"{type(criterion).__name__} gives {bad} NaN scores in {name} of shape "
                    f"{tuple(score.shape)}; the weights or the gradients are not sound."
                )
        return scores

    def candidates(
        self, grow: Regrowth, lower: Mapping[str, int], upper: Mapping[str, int]
    ) -> frozenset[str]:
        """Layers that may get weights back; see `Regrowth`."""
        named = self.entries.matching(grow.layers) & {e.name for e in self.chosen}
        if grow.ssim_below is None:
            return named
        damage = self.evidence.damage or {}
        sizes, target = self.sizes, self.target
        if len(set(sizes.values())) == 1:  # The target is met to the unit, as in `counts`.
            size = sizes[self.chosen[0].name]
            target = round(target / size) * size
        room = target - sum(lower[n] * size for n, size in sizes.items())
        allowed: set[str] = set()
        for name in sorted(named, key=lambda n: damage[n]):
            if damage[name] >= grow.ssim_below and room <= 0:
                break
            allowed.add(name)
            room -= (upper[name] - lower[name]) * sizes[name]
        return frozenset(allowed)

    def counts(
        self,
        allocation: Allocation,
        pooled: Mapping[str, Tensor],
        lower: Mapping[str, int],
        upper: Mapping[str, int],
    ) -> dict[str, int]:
        """Units of each layer whose weights come to the target."""
        sizes, target = self.sizes, self.target

        def counts(units: int) -> dict[str, int]:
            budget = Budget(units, lower, upper)
            return allocation.counts(self.chosen, budget, pooled, self.evidence)

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

    def select(self, pooled: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
        plan = self.plan
        return {
            e.name: plan.pattern.expand(largest(pooled[e.name], counts[e.name]), e.shape)
            for e in self.chosen
        }


def _selectable(pooled: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: int((p > -torch.inf).sum()) for name, p in pooled.items()}
