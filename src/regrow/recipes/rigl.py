"""RigL: sparse from the first step on, weights growing where the gradient is largest."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from regrow.core.step import Step
from regrow.engine.program import Program
from regrow.parts.schedule.steady import Steady
from regrow.recipes.common import Cut, Scope, sparse_start
from regrow.recipes.granet import exchanging


def rigl(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    end: int | str | None = None,
    every: int | str = 1,
    exchange: float = 0.3,
    regrow: Any = "gradient",
    value: Any = "zero",
    criterion: Any = "magnitude",
    seed: int = 0,
    **scope: Unpack[Scope],
) -> Program:
    """Cut at random before the first step, then exchange in each layer at a constant density.

    At event t before the end T drop the ceil(p_t n) of a layer's n weights of smallest |w| and
    grow as many of largest |dL/dw|,  p_t = p_0 (1 + cos(pi t / T)) / 2.

    Args:
        sparsity: the fraction removed from the start on.
        epochs: training in all.
        end: T; by default after three quarters of the epochs.
        every: the interval of events, in the unit of `end` (5 or "5ep", "100it").
        exchange: p_0, a fraction of each layer's living weights.
        regrow, value: which removed weights grow, and with which value.
        criterion: ranks what is dropped.
        seed: of random parts.
        scope: see `Scope`; allocation ("erk") is of the random cut, and stays.

    Source:
        Evci et al. 2020, "Rigging the lottery: making all tickets winners", algorithm 1.

    Departures:
        Gradients are the mean over the batches given to `attach`, of which the paper takes one;
        what was just dropped may grow again, and keeps its value then. Each layer's count at the
        start is exact. The first event is after one interval.

    Raises:
        RegrowError: end and interval out of order or of different units, or an exchange outside
            [0, 1).
    """
    last = Step.of(max(1, epochs * 3 // 4) if end is None else end)
    way = Steady(sparsity, last, Step.of(every))
    cut: Cut = {"allocation": "erk", "criterion": criterion, **scope}
    made = exchanging(way, epochs, (exchange, 0.0), regrow, value, cut)
    return Program((sparse_start(sparsity, cut), made), seed, "initial")
