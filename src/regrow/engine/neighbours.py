"""The neighbours of the weights that plans cut, before any event needs them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from regrow.core.errors import RegrowError
from regrow.core.neighbours import Neighbours
from regrow.core.protocols import ReadsNeighbours
from regrow.engine.event import scope
from regrow.engine.plan import Plan
from regrow.engine.unit_plan import UnitPlan
from regrow.model.coupling.neighbours import neighbours
from regrow.model.inventory import Inventory


def neighbours_for(
    plans: Iterable[Plan | UnitPlan], model: nn.Module, entries: Inventory, example: Any
) -> Neighbours | None:
    """The neighbours of all weights that plans may cut; None where no plan asks for them.

    Args:
        plans: of one program, all of one scope.
        model: runs once on the example.
        entries: its inventory.
        example: as for `attach`.

    Raises:
        RegrowError: there is no example; the neighbours of a weight are not defined, or do not suit
            a criterion.
    """
    asking = [
        plan
        for plan in plans
        if isinstance(plan, Plan) and any(need.kind == "neighbours" for need in plan.needs)
    ]
    if not asking:
        return None
    if example is None:
        raise RegrowError(
            "scores by neighbouring layers read from a run of the network which layers these are; "
            "pass example=, one batch of inputs."
        )
    names = frozenset(entry.name for plan in asking for entry in scope(plan, entries))
    found = neighbours(model, example, tuple(entries), names)
    for plan in asking:
        if isinstance(plan.criterion, ReadsNeighbours):
            plan.criterion.check(found, names)
    return found
