"""GraNet-ST: GraNet from a network that is sparse before the first step."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from regrow.engine.program import Program
from regrow.recipes.common import Cut, Scope, sparse_start
from regrow.recipes.granet import exchanging, ramp_and_hold


def granet_st(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    initial: float | None = None,
    layers: Any = "erk",
    ramp: int | str | None = None,
    end: int | str | None = None,
    every: int | str = 1,
    exchange: float = 0.5,
    exchange_end: float = 0.005,
    regrow: Any = "gradient",
    value: Any = "zero",
    criterion: Any = "magnitude",
    seed: int = 0,
    **scope: Unpack[Scope],
) -> Program:
    """Remove `initial` of the weights at random before the first step, then train as `granet`.

    Args:
        sparsity: the fraction removed at the end.
        epochs: training in all.
        initial: the fraction removed at the start; by default a half, or the sparsity if that is
            lower.
        layers: how many weights each layer has then; the scope's allocation is of the ramp's cuts.
        ramp, end, every, exchange, exchange_end, regrow, value, criterion: as of `granet`.
        seed: of random parts.
        scope: see `Scope`.

    Source:
        Liu et al. 2021, "Sparse training via boosting pruning plasticity with neuroregeneration"
        (GraNet), sparse to sparse.

    Departures:
        Those of `granet`; each layer's count at the start is exact, where the code draws every
        weight by itself.

    Raises:
        RegrowError: as `granet` does, and where `initial` is beyond the sparsity.
    """
    begun = min(0.5, sparsity) if initial is None else initial
    cut: Cut = {"criterion": criterion, **scope}
    way = ramp_and_hold(sparsity, epochs, ramp, end, every, begun)
    made = exchanging(way, epochs, (exchange, exchange_end), regrow, value, cut)
    return Program((sparse_start(begun, {**cut, "allocation": layers}), made), seed, "initial")
