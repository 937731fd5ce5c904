"""Which groups leave whole: the insides of residual branches, and layers with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from regrow.engine.groups import Groups

Measure = Callable[[Mapping[str, Tensor]], float]
Branch = tuple[str, ...]


def branches(groups: Groups) -> list[Branch]:
    """Groups that leave together, by name: without one of them the others hold nothing of use."""
    coupling = groups.coupling
    free = [group for group in groups if group.name not in groups.needed]
    owners = {unit: group.name for group in free for unit in group.classes}
    holders = [
        {owners[leaf] for leaf in set(coupling.indices.going(dim)[:, 0].tolist()) & owners.keys()}
        for dim in coupling.reach.dims
    ]
    found: dict[Branch, None] = {}
    for group in free:
        live = coupling.reach.live(coupling.emptied(frozenset(group.classes)))
        useful = {name for number in live for name in holders[number]}
        found[tuple(each.name for each in free if each is group or each.name not in useful)] = None
    return list(found)


def without(groups: Groups, gone: Iterable[Branch]) -> dict[str, Tensor]:
    """Which units stay if branches leave."""
    names = {name for branch in gone for name in branch}
    return {g.name: torch.full((len(g),), g.name not in names) for g in groups}


def leaving(
    groups: Groups, ordered: Sequence[Branch], measure: Measure, goal: float = -math.inf
) -> list[Branch]:
    """The first branches without which a measure is at most the goal, and none too many.

    Those without which an output would no longer depend on the example stay. If the goal is out of
    reach, all that can leave together do.
    """
    found: list[Branch] = []
    for branch in ordered:
        if measure(without(groups, found)) <= goal:
            break
        if groups.holds_without({name for each in (*found, branch) for name in each}):
            found.append(branch)
    for branch in found[::-1]:  # small ones before may have become superfluous
        fewer = [each for each in found if each != branch]
        if measure(without(groups, fewer)) <= goal:
            found = fewer
    return found


def in_order(
    groups: Groups,
    scores: Mapping[str, Tensor],
    measure: Measure,
    pool: Callable[[Branch], object],
) -> list[Branch]:
    """Branches in the order in which they leave.

    A branch is worth the sum of its units' scores, for each bit of the measure that goes with it.
    Those with no living unit (-inf) go first, and those with a unit that must stay (inf) last.

    Args:
        pool: branches of one pool are compared; each pool loses the same share of its own.
    """
    whole = measure(without(groups, ()))
    pools: dict[object, list[tuple[float, Branch]]] = {}
    for branch in branches(groups):
        values = torch.cat([scores[name] for name in branch])
        living = values[values > -math.inf]
        cost = whole - measure(without(groups, [branch]))
        worth = math.inf if len(living) else -math.inf
        if len(living) and cost > 0:
            worth = float(living.sum()) / cost
        pools.setdefault(pool(branch), []).append((worth, branch))
    ranked = []
    for each in pools.values():
        each.sort(key=lambda pair: pair[0])
        shares = len(pools) > 1
        for place, (worth, branch) in enumerate(each):
            late = (place + 0.5) / len(each) if shares and math.isfinite(worth) else worth
            ranked.append((late, branch))
    ranked.sort(key=lambda pair: pair[0])
    return [branch for _, branch in ranked]
