"""SET: sparse from the first step on, weights growing at random."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from regrow.core.step import Step
from regrow.engine.program import Program
from regrow.parts.schedule.steady import Steady
from regrow.recipes.common import Cut, Scope, sparse_start
from regrow.recipes.granet import exchanging


def sparse_evolution(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    end: int | str | None = None,
    every: int | str = 1,
    exchange: float = 0.3,
    value: Any = "zero",
    criterion: Any = "magnitude",
    seed: int = 0,
    **scope: Unpack[Scope],
) -> Program:
    """Cut at random before the first step, then drop the smallest and grow at random.

    At every event drop the ceil(p n) of a layer's n weights of smallest |w| and grow as many,
    wherever there is room in the layer; p stays the same.

    Args:
        sparsity: the fraction removed from the start on.
        epochs: training in all.
        end: the last event; by default after three quarters of the epochs.
        every: the interval of events, in the unit of `end` (5 or "5ep", "100it").
        exchange: p, a fraction of each layer's living weights.
        value: with which value a weight grows.
        criterion: ranks what is dropped.
        seed: of random parts.
        scope: see `Scope`; allocation ("erk") is of the random cut, and stays.

    Source:
        Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse
        connectivity inspired by network science" (SET), algorithm 1.

    Departures:
        Layers follow the Erdos-Renyi kernel, which is the paper's rule where there are no
        convolutions, with exact counts. Weights grow at zero, as Evci et al. 2020 have it, where
        the paper draws them; value="init" does. The smallest are those of least magnitude over
        both signs.

    Raises:
        RegrowError: end and interval out of order or of different units, or an exchange outside
            [0, 1).
    """
    last = Step.of(max(1, epochs * 3 // 4) if end is None else end)
    way = Steady(sparsity, last, Step.of(every))
    cut: Cut = {"allocation": "erk", "criterion": criterion, **scope}
    made = exchanging(way, epochs, (exchange, exchange), "random", value, cut)
    return Program((sparse_start(sparsity, cut), made), seed, "initial")
