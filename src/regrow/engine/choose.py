"""Which units stay, in one call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.names import unwrap
from regrow.engine.best_units import best, scored
from regrow.engine.gather import Source, gather
from regrow.engine.groups import Groups
from regrow.engine.latency import LatencyTable
from regrow.model.collect import LossFn
from regrow.model.inventory import check_finite, weights_of
from regrow.parts.patterns.unit import Unit
from regrow.parts.units import UNIT_CRITERIA


def choose(
    model: nn.Module,
    groups: Groups,
    sparsity: float,
    *,
    of: str | LatencyTable = "units",
    criterion: Any = "norm",
    scope: str = "global",
    normalisation: str = "mean",
    round_to: int = 1,
    floor: int = 1,
    whole: bool = False,
    alive: Mapping[str, Tensor] | None = None,
    loss_fn: LossFn | None = None,
    data: Iterable[Any] | None = None,
    batches: int | None = 64,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Which units stay: pass the result to `shrink` or `masked`.

    Units go in the order of their scores until at least so much is removed, and no unit more. With
    `whole`, groups that may leave whole do, none too many; others lose units only if the budget
    asks for more than that.

    Args:
        model: whose groups they are.
        groups: of `regrow.groups`.
        sparsity: the fraction to remove, in [0, 1).
        of: what of: "units", "parameters", "macs" (multiply-adds for the example), or the time by
            a table of `measure_latency`.
        criterion: of units: its name, a table with "name" and options, or a part.
        scope: scores are compared over all groups ("global"), units go from each group alike
            ("local"), or from groups of like layers alike ("isomorphic", Fang et al. 2024).
        normalisation: of each group's scores, see `regrow.parts.units.normalise`.
        round_to: groups keep a multiple of so many units, where they have as many.
        floor: the least number of units that stay in a group that does not leave whole.
        whole: let groups leave whole, such as the insides of residual branches, with the layers
            that compute and read them; see `regrow.parts.patterns.unit.Unit` for their order.
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
    model = unwrap(model)
    check_sparsity(sparsity)
    budget, measure = of if isinstance(of, str) else "units", None
    if isinstance(of, LatencyTable):
        measure = partial(of.seconds, groups)
    pattern = Unit(budget, scope, normalisation, round_to, whole)
    if type(floor) is not int or floor < 1:
        raise RegrowError(f"floor is a whole number of at least 1; got {floor!r}.")
    for name in alive or {}:
        groups[name]  # refuses what is not known
    part = UNIT_CRITERIA.build(criterion)
    members = groups.members(model)
    check_finite(weights_of(model, members))
    source = Source(loss_fn, data, batches)
    evidence = gather(part.needs, model, members, {}, source, (seed, 0), "running")
    scores = scored(part, groups, evidence, pattern)
    for name, lives in (alive or {}).items():
        scores[name] = scores[name].masked_fill(lives, math.inf)
    return best(model, groups, scores, sparsity, pattern, floor, measure)
