"""Which units of a network's groups stay, for a budget in the user's terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError, unknown
from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.core.names import unwrap
from regrow.engine.gather import Source
from regrow.engine.groups import Groups
from regrow.model.activations import mean_outputs
from regrow.model.collect import LossFn, gradients
from regrow.model.inventory import check_finite
from regrow.parts.units import UNIT_CRITERIA, UnitCriterion
from regrow.parts.units.normalise import normalise

SCOPES = ("global", "local", "isomorphic")


@dataclass(frozen=True)
class _Step:
    """Units of a group that go together, and how late: the lower, the earlier."""

    group: str
    units: tuple[int, ...]
    rank: float


def choose(
    model: nn.Module,
    groups: Groups,
    sparsity: float,
    *,
    of: str = "units",
    criterion: Any = "norm",
    scope: str = "global",
    normalisation: str = "mean",
    round_to: int = 1,
    floor: int = 1,
    alive: Mapping[str, Tensor] | None = None,
    loss_fn: LossFn | None = None,
    data: Iterable[Any] | None = None,
    batches: int | None = 64,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Which units stay: pass the result to `shrink` or `masked`.

    Units go in the order of their scores until at least so much is removed, and no unit more.

    Args:
        model: whose groups they are.
        groups: of `regrow.groups`.
        sparsity: the fraction to remove, in [0, 1).
        of: what of: "units", "parameters" or "macs" (multiply-adds for the example).
        criterion: of units: its name, a table with "name" and options, or a part.
        scope: scores are compared over all groups ("global"), units go from each group alike
            ("local"), or from groups of like layers alike ("isomorphic", Fang et al. 2024).
        normalisation: of each group's scores, see `regrow.parts.units.normalise`.
        round_to: groups keep a multiple of so many units, where they have as many.
        floor: the least number of units that stay in a group.
        alive: units that live already, as an earlier choice told: they go last, so that with a
            lower sparsity the most valuable of the others return.
        loss_fn, data, batches: for criteria that need gradients or activations, as in `attach`.
        seed: for random scores.

    Returns:
        by group: boolean, one for each unit, True = kept.

    Raises:
        RegrowError: the budget cannot be met above the floors (the largest sparsity that can be
            is named), or an argument is not known.
    """
    check_sparsity(sparsity)
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    for name, value in (("round_to", round_to), ("floor", floor)):
        if type(value) is not int or value < 1:
            raise RegrowError(f"{name} is a whole number of at least 1; got {value!r}.")
    measure = _measure(groups, of)
    part: UnitCriterion = UNIT_CRITERIA.build(criterion)
    evidence = _gather(part.needs, unwrap(model), groups, Source(loss_fn, data, batches), seed)
    scores = part.score(tuple(groups), evidence)
    scores = {name: normalise(each, normalisation) for name, each in scores.items()}
    for name in alive or {}:
        groups[name]  # refuses what is not known
    steps = _ordered(groups, scores, alive or {}, scope, round_to, floor, unwrap(model))
    whole = measure({})
    goal = whole * (1 - sparsity)
    least = measure(_after(groups, steps, len(steps)))
    if least > goal + 1e-9 * whole:
        raise RegrowError(
            f"a sparsity of {sparsity:g} of the {of} cannot be reached: with all floors "
            f"{1 - least / whole:.4f} are removed; lower the sparsity or the floor, or exclude "
            "fewer layers."
        )
    low, high = 0, len(steps)  # `high` steps suffice
    while low < high:
        middle = (low + high) // 2
        if measure(_after(groups, steps, middle)) <= goal + 1e-9 * whole:
            high = middle
        else:
            low = middle + 1
    return _after(groups, steps, high)


def _measure(groups: Groups, of: str) -> Callable[[Mapping[str, Tensor]], float]:
    measures: dict[str, Callable[[Mapping[str, Tensor]], float]] = {
        "units": lambda keep: sum(int(keep[g.name].sum()) if keep else len(g) for g in groups),
        "parameters": groups.parameters,
        "macs": groups.macs,
    }
    if of not in measures:
        raise unknown("budget", of, measures)
    return measures[of]


def _after(groups: Groups, steps: list[_Step], count: int) -> dict[str, Tensor]:
    keep = {group.name: torch.ones(len(group), dtype=torch.bool) for group in groups}
    for step in steps[:count]:
        keep[step.group][list(step.units)] = False
    return keep


def _ordered(
    groups: Groups,
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    scope: str,
    round_to: int,
    floor: int,
    model: nn.Module,
) -> list[_Step]:
    """Steps of at most `round_to` units, each group's in its own order, the least first."""
    modules = dict(model.named_modules())
    pools: dict[object, list[_Step]] = {}
    for group in groups:
        values = scores[group.name].clone()
        if group.name in alive:
            values[alive[group.name]] = math.inf
        values, order = values.sort(stable=True)
        size = len(group)
        least = min(size, max(floor, math.ceil(floor / round_to) * round_to, round_to))
        first = size % round_to if size > round_to else 0
        start, highest = 0, -math.inf
        while size - start > least:
            end = min(start + (first if start == 0 and first else round_to), size - least)
            # A step is as late as its best unit, and never before those that precede it.
            highest = max(highest, float(values[end - 1]))
            rank = end / size if scope == "local" and highest < math.inf else highest
            step = _Step(group.name, tuple(order[start:end].tolist()), rank)
            pools.setdefault(_pool(group, scope, modules), []).append(step)
            start = end
    steps = []
    for pool in pools.values():
        ordered = sorted(pool, key=lambda step: step.rank)
        if scope == "isomorphic":
            ordered = [
                _Step(step.group, step.units, (i + 1) / len(ordered))
                for i, step in enumerate(ordered)
            ]
        steps += ordered
    return sorted(steps, key=lambda step: step.rank)


def _pool(group: Group, scope: str, modules: Mapping[str, nn.Module]) -> object:
    if scope != "isomorphic":
        return scope
    return tuple(
        (type(modules.get(member.name.rpartition(".")[0])).__name__, member.dim, member.produces)
        for member in group.members
    )


def _gather(
    needs: frozenset[Need], model: nn.Module, groups: Groups, source: Source, seed: int
) -> Evidence:
    used = {member.name for group in groups for member in group.members}
    parameters = {name: p for name, p in model.named_parameters() if name in used}
    check_finite(parameters)
    found: dict[Need, dict[str, Tensor]] = {
        Need("weight"): {name: p.detach() for name, p in parameters.items()}
    }
    wanted = {need.kind for need in needs} - {"weight"}
    if wanted:
        source.check(needs)
    if wanted & {"gradient", "gradient_square"}:
        with source.open() as (loss_fn, batches):
            mean, square = gradients(
                model, parameters, loss_fn, batches, square="gradient_square" in wanted
            )
        found[Need("gradient")], found[Need("gradient_square")] = mean, square
    if "activation" in wanted:
        with source.open() as (loss_fn, batches):
            found[Need("activation")] = mean_outputs(model, parameters, loss_fn, batches)
    return Evidence(found, key=(seed, 0))
