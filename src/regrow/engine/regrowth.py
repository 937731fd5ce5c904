"""How removed weights return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.core.protocols import Allocation, Criterion, Value
from regrow.parts.allocate.global_ import Global
from regrow.parts.regrowth.values import Zero


def globs(given: str | Sequence[str]) -> tuple[str, ...]:
    """Globs of layers: several, or a single one as text."""
    return (given,) if isinstance(given, str) else tuple(given)


@dataclass(frozen=True)
class Regrowth:
    """How removed weights return when the target density rises.

    Attributes:
        rule: ranks removed entries, higher returns first.
        value: with which value they return.
        allocation: how many return in each layer.
        layers: globs of the layers that may get weights back.
        ssim_below: only layers whose similarity to the dense activations is below this may;
            where they have too little room, the next most damaged layers join. None: all.
        exchange: the fraction of the living weights that every event cuts beyond its target and
            lets grow back elsewhere, at first; it falls along a cosine until the schedule's last
            event (Liu et al. 2021, "GraNet"; Evci et al. 2020). Events then happen at an
            unchanged target too.
        exchange_end: the fraction at the last event; equal to `exchange` it stays the same.
        within: "network" lets all layers compete in an exchange, for what goes and what returns.
            "layer" gives every layer back as many units as it has lost, so that only the plan's
            own cuts, which come first in an event, move weights between layers.
    """

    rule: Criterion
    value: Value = field(default_factory=Zero)
    allocation: Allocation = field(default_factory=Global)
    layers: tuple[str, ...] = ("*",)
    ssim_below: float | None = None
    exchange: float = 0.0
    exchange_end: float = 0.0
    within: Literal["network", "layer"] = "network"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", globs(self.layers))
        if not 0 <= self.exchange < 1:
            raise RegrowError(
                f"exchange={self.exchange} is a fraction of the living weights, in [0, 1)."
            )
        if not 0 <= self.exchange_end <= self.exchange:
            raise RegrowError(
                f"exchange_end={self.exchange_end} is where the exchange falls to, between 0 and "
                f"exchange={self.exchange}."
            )
        if self.within not in ("network", "layer"):
            raise RegrowError(f"within={self.within!r} is neither 'network' nor 'layer'.")
        if self.within == "layer" and any(need.of == "reference" for need in self.rule.needs):
            raise RegrowError(
                "a rule by a reference network may find too few weights to return in a layer; "
                "take another rule for an exchange within layers."
            )
        if self.exchange and (self.layers != ("*",) or self.ssim_below is not None):
            raise RegrowError(
                "an exchange takes weights from all layers, so all must be able to get them back; "
                "leave out the candidate layers and ssim_below, or exchange."
            )
        if self.exchange and Need("trial") in self.allocation.needs:
            raise RegrowError(
                "an exchange happens too often to learn its layer budgets by trial; leave exchange "
                "at 0, or take another allocation."
            )

    @property
    def needs(self) -> frozenset[Need]:
        needs = self.rule.needs | self.value.needs | self.allocation.needs
        return needs if self.ssim_below is None else needs | {Need("damage")}
