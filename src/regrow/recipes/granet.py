"""GraNet: a ramp by magnitude, and as many weights grown as dropped in every layer."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.schedule.steady import Steady
from regrow.recipes.common import Cut, Scope, plan


def granet(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
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
    """Train from dense initial weights, cut along a cubic ramp and exchange at every event.

    At event t, with the ramp's end r and the last event T:

        1. keep the (1 - s_t) N weights of largest |w|,  s_t = s - s (1 - t / r)^3  (s after r);
        2. in each layer drop the ceil(p_t n) of its n weights of smallest |w| and grow as many
           of largest |dL/dw|,  p_t = p_T + (p_0 - p_T) (1 + cos(pi t / T)) / 2.

    Args:
        sparsity: the fraction removed at the end.
        epochs: training in all.
        ramp, end: when the target is reached, and the last event; by default after a half and
            three quarters of the epochs.
        every: the interval of events. All three in epochs (5 or "5ep") or all in iterations
            ("1000it").
        exchange, exchange_end: p_0 and p_T, fractions of each layer's living weights; with 0 for
            both it is gradual magnitude pruning.
        regrow, value: which removed weights grow, and with which value.
        criterion: ranks what is cut and what is dropped.
        seed: of random parts.
        scope: see `Scope`.

    Source:
        Liu et al. 2021, "Sparse training via boosting pruning plasticity with neuroregeneration"
        (GraNet); settings of its CIFAR experiments.

    Departures:
        The ramp's last event meets the target exactly. Gradients are the mean over the batches
        given to `attach`, of which the paper takes one. The exchange ends early enough for masks
        to settle, where the paper's goes on to the end. See docs/methods/granet.md.

    Raises:
        RegrowError: ramp, end and interval out of order or of different units, an exchange
            outside [0, 1), or one that rises.
    """
    cut: Cut = {"criterion": criterion, **scope}
    way = ramp_and_hold(sparsity, epochs, ramp, end, every)
    made = exchanging(way, epochs, (exchange, exchange_end), regrow, value, cut)
    return Program((made,), seed, "initial")


def ramp_and_hold(
    sparsity: float,
    epochs: int,
    ramp: int | str | None,
    end: int | str | None,
    every: int | str,
    initial: float = 0.0,
) -> Steady:
    """Events along a ramp and on at the target; by default for a half and three quarters."""
    top = Step.of(max(1, epochs // 2) if ramp is None else ramp)
    last = Step.of(max(1, epochs * 3 // 4) if end is None else end)
    return Steady(sparsity, last, Step.of(every), top, initial)


def exchanging(
    way: Steady, epochs: int, shares: tuple[float, float], regrow: Any, value: Any, cut: Cut
) -> Stage:
    """A stage whose events give every layer back what it has dropped.

    Args:
        way: when, and how many weights there are then.
        epochs: the stage's length.
        shares: of each layer's living weights that are exchanged, at first and at the last event.
        regrow, value: which removed weights grow, and with which value.
        cut: see `Cut`.
    """
    first, last = shares
    rule, start = RULES.build(regrow), VALUES.build(value)
    grow = Regrowth(rule, start, exchange=first, exchange_end=last, within="layer")
    return Stage(plan(way, cut, grow), Step.epochs(epochs))
