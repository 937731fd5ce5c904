"""Channels and heads."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.core.errors import RegrowError, unknown

BUDGETS = ("units", "parameters", "macs")
SCOPES = ("global", "local", "isomorphic")


@dataclass(frozen=True)
class Unit:
    """Channels and heads with all that belongs to them, which `shrink` cuts out.

    Other patterns are of one weight each; a unit goes through all layers that are coupled by it,
    so it has no masks of its own weight to pool or expand.

    Attributes:
        of: what a sparsity is a fraction of: "units", "parameters" or "macs" (multiply-adds for
            the example).
        scope: scores are compared over all groups ("global"), units go from each group alike
            ("local"), or from groups of like layers alike ("isomorphic").
        normalisation: of each group's scores: "none", "mean", "max", "sum" or "standard".
        round_to: groups keep a multiple of so many units, where they have as many.
        whole: groups that may leave whole go first, such as the insides of residual branches, by
            what they are worth for each bit of the budget: by the sum of their scores as they are.
            They are compared over the network, or among like layers ("isomorphic"), or among those
            of the same sizes ("local"), of which the same share goes.

    Source: groups: Fang et al. 2023; isomorphic scope: Fang et al. 2024.

    Raises:
        RegrowError: a name or number is not one of these.
    """

    of: str = "macs"
    scope: str = "global"
    normalisation: str = "mean"
    round_to: int = 1
    whole: bool = False

    def __post_init__(self) -> None:
        if self.of not in BUDGETS:
            raise unknown("budget", self.of, BUDGETS)
        if self.scope not in SCOPES:
            raise unknown("scope", self.scope, SCOPES)
        if type(self.round_to) is not int or self.round_to < 1:
            raise RegrowError(f"round_to is a whole number of at least 1; got {self.round_to!r}.")
        if type(self.whole) is not bool:
            raise RegrowError(f"whole is true or false; got {self.whole!r}.")
