"""Which units of a network's groups stay, by their scores, for a budget in the user's terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence
from regrow.core.groups import Group
from regrow.engine.groups import Groups
from regrow.engine.whole import Branch, Measure, branches, in_order, leaving, without
from regrow.parts.patterns.unit import Unit
from regrow.parts.units import UnitCriterion
from regrow.parts.units.normalise import normalise


@dataclass(frozen=True)
class _Step:
    """Units of a group that go together, and how late: the lower, the earlier."""

    group: str
    units: tuple[int, ...]
    rank: float


def scored(
    criterion: UnitCriterion, groups: Groups, evidence: Evidence, pattern: Unit
) -> dict[str, Tensor]:
    """Scores (units,) of all groups, made comparable; as they are where whole groups compete."""
    scores = criterion.score(tuple(groups), evidence)
    return {
        name: each
        if pattern.whole and name not in groups.needed
        else normalise(each, pattern.normalisation)
        for name, each in scores.items()
    }


def best(
    model: nn.Module,
    groups: Groups,
    scores: Mapping[str, Tensor],
    sparsity: float,
    pattern: Unit,
    floor: int,
    measure: Measure | None = None,
) -> dict[str, Tensor]:
    """The best units: others go in the order of their scores until so much is removed.

    If the pattern says so, whole branches go first, the last of them only in part if that is
    enough, and units of the other groups only if these do not suffice.

    Args:
        model: whose groups they are.
        groups: of it.
        scores: by group, (units,); -inf goes before, and inf after everything else.
        sparsity: the fraction to remove of what the pattern says.
        pattern: budget, scope and rounding.
        floor: the least number of units that stay in a group.
        measure: what a choice leaves of another budget than the pattern's.

    Returns:
        by group: boolean, one for each unit, True = kept.

    Raises:
        RegrowError: see `check_reach`.
    """
    told, measure = measure, measure or measure_of(groups, pattern.of)
    gone: list[Branch] = []
    if pattern.whole:
        pool = partial(_pool, groups, dict(model.named_modules()), pattern.scope)
        ordered = in_order(groups, scores, measure, pool)
        gone = leaving(groups, ordered, measure, _goal(sparsity, measure))
    goal = check_reach(groups, sparsity, pattern, floor, told, gone)
    steps = _ordered(model, groups, scores, pattern, floor)
    if gone:  # the last of them loses only some units, if that is enough
        last = [step for step in steps if step.group in gone[-1]]
        start = without(groups, gone[:-1])
        if measure(_after(start, last, len(last))) <= goal:
            return _fewest(start, last, measure, goal)
    start = without(groups, gone)
    steps = [step for step in steps if bool(start[step.group].any())]
    return _fewest(start, steps, measure, goal)


def _fewest(
    start: Mapping[str, Tensor], steps: list[_Step], measure: Measure, goal: float
) -> dict[str, Tensor]:
    """What stays after the fewest steps that reach a goal, which all of them do."""
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        if measure(_after(start, steps, middle)) <= goal:
            high = middle
        else:
            low = middle + 1
    return _after(start, steps, high)


def check_reach(
    groups: Groups,
    sparsity: float,
    pattern: Unit,
    floor: int,
    measure: Measure | None = None,
    gone: Sequence[Branch] | None = None,
) -> float:
    """What a sparsity leaves of the budget, with a margin for rounding.

    Args:
        groups, sparsity, pattern, floor, measure: see `best`.
        gone: branches that leave; where the pattern lets any, by default all that can.

    Raises:
        RegrowError: it cannot be met above the floors; the largest that can be is named.
    """
    of = pattern.of if measure is None else "time"
    measure = measure or measure_of(groups, pattern.of)
    whole, goal = measure({}), _goal(sparsity, measure)
    if gone is None:
        gone = leaving(groups, branches(groups), measure) if pattern.whole else []
    stays = without(groups, gone)
    fewest = {
        g.name: stays[g.name] & (torch.arange(len(g)) < _least(len(g), pattern.round_to, floor))
        for g in groups
    }
    least = measure(fewest)
    if least > goal:
        raise RegrowError(
            f"a sparsity of {sparsity:g} of the {of} cannot be reached: with all floors "
            f"{1 - least / whole:.4f} are removed; lower the sparsity or the floor, or exclude "
            "fewer layers."
        )
    return goal


def _goal(sparsity: float, measure: Measure) -> float:
    whole = measure({})
    return whole * (1 - sparsity) + 1e-9 * whole


def measure_of(groups: Groups, of: str) -> Measure:
    """What a choice of units leaves of a budget."""
    measures: dict[str, Measure] = {
        "units": lambda keep: sum(int(keep[g.name].sum()) if keep else len(g) for g in groups),
        "parameters": groups.parameters,
        "macs": groups.macs,
    }
    return measures[of]


def _least(size: int, round_to: int, floor: int) -> int:
    return min(size, math.ceil(floor / round_to) * round_to)


def _after(start: Mapping[str, Tensor], steps: list[_Step], count: int) -> dict[str, Tensor]:
    keep = {name: mask.clone() for name, mask in start.items()}
    for step in steps[:count]:
        keep[step.group][list(step.units)] = False
    return keep


def _ordered(
    model: nn.Module, groups: Groups, scores: Mapping[str, Tensor], pattern: Unit, floor: int
) -> list[_Step]:
    """Steps of at most `round_to` units, each group's in its own order, the least first."""
    modules, round_to = dict(model.named_modules()), pattern.round_to
    pools: dict[object, list[_Step]] = {}
    for group in groups:
        values, order = scores[group.name].sort(stable=True)
        size = len(group)
        least = _least(size, round_to, floor)
        first = size % round_to if size > round_to else 0
        start, highest = 0, -math.inf
        while size - start > least:
            end = min(start + (first if start == 0 and first else round_to), size - least)
            # A step is as late as its best unit, and never before those that precede it.
            highest = max(highest, float(values[end - 1]))
            local = pattern.scope == "local" and math.isfinite(highest)
            rank = end / size if local else highest
            step = _Step(group.name, tuple(order[start:end].tolist()), rank)
            pools.setdefault(_kind(group, pattern.scope, modules), []).append(step)
            start = end
    steps = []
    for pool in pools.values():
        ordered = sorted(pool, key=lambda step: step.rank)
        if pattern.scope == "isomorphic":
            ordered = [
                _Step(
                    step.group,
                    step.units,
                    (i + 1) / len(ordered) if math.isfinite(step.rank) else step.rank,
                )
                for i, step in enumerate(ordered)
            ]
        steps += ordered
    return sorted(steps, key=lambda step: step.rank)


def _kind(group: Group, scope: str, modules: Mapping[str, nn.Module]) -> object:
    if scope != "isomorphic":
        return scope
    return tuple(
        (type(modules.get(member.name.rpartition(".")[0])).__name__, member.dim, member.produces)
        for member in group.members
    )


def _pool(groups: Groups, modules: Mapping[str, nn.Module], scope: str, branch: Branch) -> object:
    """Branches of like layers, or of layers of the same sizes."""
    if scope == "global":
        return scope
    kinds = tuple(_kind(groups[name], "isomorphic", modules) for name in branch)
    if scope == "isomorphic":
        return kinds
    shapes = groups.coupling.trained
    return kinds, tuple(shapes.get(m.name) for name in branch for m in groups[name].members)
