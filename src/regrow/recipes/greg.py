"""Growing regularisation: what shall go is driven to zero before it is removed."""

from __future__ import annotations

from dataclasses import replace

from typing_extensions import Unpack

from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.parts.penalty.growing import Growing
from regrow.parts.schedule.manual import Manual
from regrow.recipes.common import Cut, plan


def greg1(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    removal: int | str | None = None,
    every: int | str = 1,
    ceiling: float = 1.0,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Choose at once what shall go, pull on it ever more, then remove it (GReg-1).

    Args:
        sparsity: the fraction removed.
        epochs: training in all.
        removal: when what is left of the chosen weights is removed, in epochs or iterations; by
            default after half of the epochs.
        every: the interval at which the strength grows, in the unit of `removal`.
        ceiling: the strength that is reached after four fifths of the way, and held.
        seed: of random parts.
        cut: see `Cut`; the published criterion is "magnitude", in units "norm".

    Source:
        Wang, Qin, Zhang, Fu 2021, "Neural pruning via growing regularization", alg. 1.

    Departures:
        One budget over all layers by default, where the authors set rates by hand for each stage.
        The learning rate is that of training, and the strength grows in few and large steps, which
        suits hundreds of epochs as well as ten. With pattern "unit" the pull is on all parameters
        of a channel, its norm and what reads it among them, so that nothing is left to jump.

    Raises:
        RegrowError: the removal does not fall within the epochs, or leaves no time to grow.
    """
    end, grows = _window(epochs, removal, every)
    penalty = Growing(ceiling / grows, Step.of(every), ceiling)
    return _program(sparsity, epochs, end, penalty, cut, seed)


def greg2(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    removal: int | str | None = None,
    every: int | str = 1,
    pick: float = 0.01,
    ceiling: float = 1.0,
    recover: float = -1e-4,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Pull on everything a little, choose what has given way, then as GReg-1 (GReg-2).

    Args:
        sparsity, epochs, removal, every, ceiling: as in `greg1`.
        pick: the strength on everything at which the choice falls, a quarter of the way; where
            the loss is flat, weights have followed it further (Wang et al. 2021, eq. 4).
        recover: the strength on what stays, after the choice.
        seed: of random parts.
        cut: see `Cut`; the published criterion is "magnitude", in units "norm".

    Source:
        Wang, Qin, Zhang, Fu 2021, "Neural pruning via growing regularization", alg. 2.

    Departures:
        As in `greg1`.

    Raises:
        RegrowError: as `greg1` does.
    """
    end, grows = _window(epochs, removal, every)
    picks = max(1, grows // 4)
    if grows - picks < 1:
        raise RegrowError(
            f"until the removal at {end} the strength grows {grows} time(s), but the choice and "
            "the pull after it need at least two; remove later, or grow more often."
        )
    delta = (ceiling - pick) / (grows - picks)
    penalty = Growing(delta, Step.of(every), ceiling, pick, pick / picks, recover)
    return _program(sparsity, epochs, end, penalty, cut, seed)


_HELD = 0.2  # of the way to the removal


def _window(epochs: int, removal: int | str | None, every: int | str) -> tuple[Step, int]:
    """When what was chosen is removed, and how often the strength grows before it is held."""
    end, step = Step.of(max(2, epochs // 2) if removal is None else removal), Step.of(every)
    if end.unit != step.unit or not step.value:
        raise RegrowError(
            f"removal={end} and every={step} must be of one unit, epochs or iterations, and every "
            "at least one of them."
        )
    grows = int((1 - _HELD) * end.value) // step.value
    if grows < 1:
        raise RegrowError(
            f"until the removal at {end} the strength never grows every {step}; remove later, or "
            "grow more often."
        )
    return end, grows


def _program(
    sparsity: float, epochs: int, end: Step, penalty: Growing, cut: Cut, seed: int
) -> Program:
    made = plan(Manual((sparsity,), (end,)), cut)
    return Program((Stage(replace(made, penalty=penalty), Step.epochs(epochs)),), seed)
