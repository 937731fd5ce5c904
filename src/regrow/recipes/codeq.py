"""CoDeQ: sparsity and few bits from one training, by a quantiser with a learned dead zone."""

from __future__ import annotations

from collections.abc import Sequence

from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import globs
from regrow.parts.reparam.dead_zone import DeadZone
from regrow.parts.schedule.outcome import Outcome


def codeq(
    epochs: int = 60,
    *,
    bits: int = 4,
    learn_bits: bool = False,
    decay: float = 1.0,
    bits_decay: float = 0.0,
    lr: float = 0.01,
    sparsity: float | None = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> Program:
    """Use quantised weights with a dead zone around zero, whose width each layer learns.

    At every step, in each layer:

        1. use w = s z + h sign(z) in the place of the trained weights v, z whole numbers of `bits`
           bits, zero where |v| is below half of the dead zone's width (see `DeadZone`);
        2. update v by the gradient of w, with the user's optimiser;
        3. update the number that sets the width by its gradient and by its weight decay, which
           alone makes zeros.

    Args:
        epochs: training in all.
        bits, learn_bits: of each weight; or, where each layer learns its own, the most.
        decay: of the width's number: the one knob of sparsity. The more, the sparser.
        bits_decay: of the bits' number, where they are learned.
        lr: of both, under AdamW.
        sparsity: stays None. How sparse the network becomes is an outcome of training.
        include, exclude: globs of layers that are quantised, and that are not.
        seed: of nothing here; recipes have one.

    Source:
        arXiv 2512.12981 (2025), "CoDeQ".

    Departures:
        What trains the weights is the user's optimiser, of which the authors take AdamW. The
        learning rate of the learned numbers falls along a cosine. See docs/methods/codeq.md.

    Raises:
        RegrowError: a sparsity is asked for; a number is out of its range.
    """
    if sparsity is not None:
        raise RegrowError(
            f"codeq cannot be asked for sparsity={sparsity}: it is an outcome of training, and "
            "what moves it is decay, the weight decay of the dead zone. Leave sparsity out and "
            "raise decay, or take a recipe that meets a sparsity, such as 'gradual'."
        )
    plan = Plan(
        Outcome(Step.epochs(epochs - 1)),
        include=globs(include),
        exclude=globs(exclude),
        reparam=DeadZone(bits, learn_bits, decay, bits_decay, lr),
    )
    return Program((Stage(plan, Step.epochs(epochs)),), seed)
