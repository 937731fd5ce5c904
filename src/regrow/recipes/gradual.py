"""Gradual magnitude pruning: a cubic ramp while training goes on."""

from __future__ import annotations

from typing_extensions import Unpack

from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.parts.schedule.cubic import Cubic
from regrow.recipes.common import Cut, plan


def gradual(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    start: int | str = 0,
    end: int | str | None = None,
    every: int | str = 1,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Raise the sparsity along a cubic ramp, then train on at the target.

    With criterion="magnitude" this is gradual magnitude pruning (GMP) over all layers together;
    with allocation="uniform" too, each layer alike, as published. `granet` with both its exchanges
    0 is the former, from initial weights.

    Args:
        sparsity: the fraction removed at the end.
        epochs: training in all.
        start, end: the ramp's window in epochs, or all three in iterations ("500it"); by default it
            ends at three quarters.
        every: the interval of events, in epochs (5 or "5ep") or iterations.
        seed: of random parts.
        cut: see `Cut`; the criterion of the published method is "magnitude".

    Source:
        Zhu and Gupta 2017, "To prune, or not to prune", eq. 1.

    Departures:
        LAMP over all layers by default, as everywhere here, where the paper cuts every layer
        alike.
    """
    first = Step.of(start)
    last = Step(max(first.value + 1, epochs * 3 // 4)) if end is None else Step.of(end)
    ramp = Cubic(sparsity, last, first, Step.of(every))
    return Program((Stage(plan(ramp, cut), Step.epochs(epochs)),), seed)
