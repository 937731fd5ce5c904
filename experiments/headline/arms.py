"""The arms of the headline study: controls, the paper's form, each of its choices, and the search.

Every arm starts from the same dense network per seed and gets the same number of steps; what
differs stands in one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from regrow.core.evidence import Statistics
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.parts.criteria import CRITERIA
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.manual import Manual
from regrow.parts.schedule.rebound import Rebound
from regrow.recipes import bidirectional_paper, iterative, one_shot


@dataclass(frozen=True)
class Setting:
    """What the arms of a table share.

    Attributes:
        sparsity: the target.
        overshoot: the paper's kind of overshoot, well beyond the target.
        epochs: fine-tuning epochs of every arm.
        steps: optimiser steps of one epoch.
    """

    sparsity: float
    overshoot: float
    epochs: int
    steps: int

    @property
    def shallow(self) -> float:
        """An overshoot that removes a quarter of what the target leaves."""
        return 1 - 0.75 * (1 - self.sparsity)

    @property
    def halves(self) -> tuple[int, int]:
        return (self.epochs - self.epochs // 2, self.epochs // 2)

    def at(self, share: float) -> Step:
        """A share of the budget, in iterations, on a quarter of an epoch."""
        quarter = self.steps // 4
        return Step.iterations(round(share * self.epochs * self.steps / quarter) * quarter)

    @property
    def quarter(self) -> Step:
        return Step.iterations(self.steps // 4)


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        program: by setting and seed; None for the small dense network.
        note: what it is, for the table.
        restart: whether the learning rate starts anew with every stage, or half-way.
        training: fields of the training that differ.
        tag: an experiment's own behaviour; see `HOOKS` in spec.py.
        main: belongs to the arms that get all seeds.
    """

    program: Callable[[Setting, int], Program] | None
    note: str
    restart: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    tag: str = ""
    main: bool = False


def _paper(**changes: Any) -> Callable[[Setting, int], Program]:
    """The published form: deep overshoot in one cut, saliency, zeros; with changes."""

    def make(at: Setting, seed: int) -> Program:
        options = {"sparsity": at.sparsity, "overshoot": at.overshoot, "epochs": at.halves}
        return bidirectional_paper(**{**options, **changes}, statistics="running", seed=seed)

    return make


def _learned(at: Setting, seed: int) -> Program:
    """The learned budgets: its trials take as many steps as a quarter of the epochs."""
    down, up = at.halves
    search = at.epochs // 4
    layers = {"name": "learned", "episodes": search * at.steps // 20}  # Of 20 steps each.
    return bidirectional_paper(
        at.sparsity, at.overshoot, (down, up - search), layers=layers, seed=seed
    )


def _gradual(
    end: float, criterion: str = "lamp", statistics: Statistics = "running"
) -> Callable[[Setting, int], Program]:
    def make(at: Setting, seed: int) -> Program:
        ramp = Cubic(at.sparsity, at.at(end), every=at.quarter)
        return _single(at, Plan(ramp, CRITERIA.build(criterion), statistics=statistics), seed)

    return make


def _competing(
    memory: float, criterion: str = "magnitude", statistics: Statistics = "running"
) -> Callable[[Setting, int], Program]:
    """All weights compete: on a ramp over half of the epochs, and until three quarters."""

    def make(at: Setting, seed: int) -> Program:
        way = Rebound(at.sparsity, at.sparsity, at.at(0.5), at.at(0.75), at.quarter)
        plan = Plan(way, CRITERIA.build(criterion), memory=memory, statistics=statistics)
        return _single(at, plan, seed)

    return make


def _exchanging(
    rule: str,
    value: Any,
    fraction: float,
    memory: float | None = None,
    *,
    overshoot: Callable[[Setting], float] = lambda at: at.sparsity,
    criterion: str = "magnitude",
    peak: float = 0.5,
    end: float = 0.75,
    statistics: Statistics = "running",
) -> Callable[[Setting, int], Program]:
    """A ramp until the peak and, where it overshoots, the way back until the end.

    Until the end every event exchanges weights.
    """

    def make(at: Setting, seed: int) -> Program:
        grow = Regrowth(RULES.build(rule), VALUES.build(value), exchange=fraction)
        way = Rebound(at.sparsity, overshoot(at), at.at(peak), at.at(end), at.quarter)
        plan = Plan(
            way, CRITERIA.build(criterion), regrowth=grow, memory=memory, statistics=statistics
        )
        return _single(at, plan, seed)

    return make


def _decompression(at: Setting, seed: int) -> Program:
    """After a ramp everything comes back, for a second ramp of the same length."""
    begin, back, end = at.at(0.34375).value, at.at(0.375).value, at.at(0.75).value
    steps = {now: at.sparsity * (1 - (1 - now / begin) ** 3) for now in _events(at, 0, begin)}
    steps[back] = 0.0
    for now in _events(at, back, end):
        steps[now] = at.sparsity * (1 - (1 - (now - back) / (end - back)) ** 3)
    way = Manual(tuple(steps.values()), tuple(Step.iterations(now) for now in steps))
    plan = Plan(way, CRITERIA.build("magnitude"), regrowth=Regrowth(RULES.build("random")))
    return _single(at, plan, seed)


def _events(at: Setting, begin: int, end: int) -> range:
    return range(begin + at.quarter.value, end + 1, at.quarter.value)


def _single(at: Setting, plan: Plan, seed: int) -> Program:
    return Program((Stage(plan, Step.epochs(at.epochs)),), seed)


# Evidence comes in the batches of training.
_STEP = {"name": "newton", "batch": 64}


def _shallow(at: Setting) -> float:
    return at.shallow


def _tenth(at: Setting) -> float:
    return 1 - 0.9 * (1 - at.sparsity)


def _deep(at: Setting) -> float:
    return at.overshoot


ARMS: dict[str, Arm] = {
    # Controls.
    "one_way": Arm(
        lambda at, seed: one_shot(at.sparsity, at.epochs, seed=seed), "one cut", main=True
    ),
    "iterative": Arm(
        lambda at, seed: iterative(at.sparsity, at.epochs, cuts=4, seed=seed),
        "four geometric cuts, a quarter of the epochs after each",
        main=True,
    ),
    "gradual_75": Arm(_gradual(0.75), "cubic ramp over three quarters", main=True),
    "gradual_magnitude": Arm(_gradual(0.75, "magnitude"), "the same by global magnitude"),
    "gradual_saliency": Arm(_gradual(0.75, "saliency"), "gradual_75 by saliency"),
    "gradual_saliency_25": Arm(_gradual(0.25, "saliency"), "by saliency over the first quarter"),
    "gradual_saliency_50": Arm(
        _gradual(0.5, "saliency"), "by saliency over the first half", main=True
    ),
    "gradual_batch": Arm(
        _gradual(0.5, "saliency", "batch"),
        "gradual_saliency_50, gradients read under batch statistics",
        main=True,
    ),
    "gradual_distilled": Arm(
        _gradual(0.5, "saliency"),
        "gradual_saliency_50 with distillation",
        training={"distillation": 0.7},
    ),
    "exchange": Arm(
        _exchanging("gradient", "zero", 0.3), "GraNet-like: exchange by gradient, zero"
    ),
    "one_way_restart": Arm(
        lambda at, seed: one_shot(at.sparsity, at.epochs, seed=seed),
        "one cut, learning rate restarted half-way",
        restart=True,
    ),
    "small_dense": Arm(None, "dense network of as many weights, trained for all epochs"),
    "no_regrowth": Arm(
        lambda at, seed: one_shot(at.overshoot, at.epochs, seed=seed),
        "one cut to the overshoot, rate restarted (sparser than the others)",
        restart=True,
    ),
    # The search: cuts by global magnitude, one learning-rate cycle.
    "frozen": Arm(_competing(0), "removed weights compete with their old values"),
    "damped": Arm(_competing(0.1), "they go on learning at a tenth of the speed, and compete"),
    "frozen_saliency": Arm(_competing(0, criterion="saliency"), "frozen, by saliency"),
    "frozen_batch": Arm(
        _competing(0, "saliency", "batch"), "frozen, by saliency under batch statistics"
    ),
    "gain_saliency": Arm(
        _exchanging("gain", "remembered", 0.1, 0, criterion="saliency"),
        "the same, exchanged by gain, old values",
    ),
    "newton_saliency": Arm(
        _exchanging("newton", "zero", 0.1, criterion="saliency"),
        "gradual_saliency_50 and a tenth exchanged by Newton gain, zero",
        main=True,
    ),
    "newton_batch": Arm(
        _exchanging("newton", "zero", 0.1, criterion="saliency", statistics="batch"),
        "newton_saliency, gradients read under batch statistics",
        main=True,
    ),
    "newton_ramp": Arm(
        _exchanging("newton", "zero", 0.1, criterion="saliency", end=0.53125, statistics="batch"),
        "newton_batch, exchanging during the ramp only",
        main=True,
    ),
    "gain_batch": Arm(
        _exchanging("gain", "remembered", 0.05, 0, criterion="saliency", statistics="batch"),
        "gradual_batch and a twentieth exchanged by first-order gain, old values",
    ),
    "newton_tenth": Arm(
        _exchanging(
            "newton", "zero", 0, overshoot=_tenth, criterion="saliency", statistics="batch"
        ),
        "gradual_batch a tenth too far, and the way back by Newton gain, nothing exchanged",
    ),
    "newton_distilled": Arm(
        _exchanging("newton", "zero", 0.1, criterion="saliency"),
        "newton_saliency with distillation",
        training={"distillation": 0.7},
    ),
    "newton_later": Arm(
        _exchanging("newton", "zero", 0.1, criterion="saliency", end=0.9),
        "newton_saliency, exchanging until nine tenths",
    ),
    "newton_shallow": Arm(
        _exchanging("newton", "zero", 0.1, overshoot=_shallow, criterion="saliency"),
        "newton_saliency with a shallow overshoot and the way back",
    ),
    "newton_early": Arm(
        _exchanging("newton", "zero", 0.05, criterion="saliency", peak=0.25),
        "ramp over a quarter, then a twentieth exchanged by Newton gain",
    ),
    "newton_early_shallow": Arm(
        _exchanging("newton", "zero", 0.05, overshoot=_shallow, criterion="saliency", peak=0.25),
        "newton_early with a shallow overshoot and the way back",
    ),
    "newton_early_deep": Arm(
        _exchanging("newton", "zero", 0.05, overshoot=_deep, criterion="saliency", peak=0.25),
        "newton_early with a deep overshoot and the way back",
    ),
    "newton_step": Arm(
        _exchanging("newton", _STEP, 0.05, criterion="saliency"),
        "a twentieth exchanged by Newton gain, back at half a Newton step",
    ),
    "gradient_saliency": Arm(
        _exchanging("gradient", "zero", 0.1, criterion="saliency"),
        "the same, exchanged by gradient, zero",
    ),
    "decompression": Arm(_decompression, "AC/DC-like: all return once, zero"),
    # The paper's form, and each of its choices exchanged for another.
    "paper": Arm(_paper(), "paper: one-shot start, saliency, zero", restart=True, main=True),
    "paper_iterative": Arm(
        _paper(cuts=4), "paper: iterative start in 4 cuts", restart=True, main=True
    ),
    "paper_one_cosine": Arm(_paper(), "paper without the learning-rate restart"),
    "rule_magnitude": Arm(_paper(regrow="magnitude"), "rule: dense magnitude", restart=True),
    "rule_gradient": Arm(_paper(regrow="gradient"), "rule: gradient", restart=True),
    "rule_random": Arm(_paper(regrow="random"), "rule: random", restart=True),
    "rule_reference": Arm(
        lambda at, seed: bidirectional_paper(
            at.sparsity,
            at.overshoot,
            (at.epochs // 3, at.epochs - 2 * (at.epochs // 3)),
            regrow="reference",
            value="reference",
            reference=1 - 2.5 * (1 - at.sparsity),
            seed=seed,
        ),
        "rule and value: a less sparse reference network, trained first",
        restart=True,
    ),
    "value_dense": Arm(_paper(value="dense"), "value: the dense weight", restart=True),
    "value_init": Arm(_paper(value="init"), "value: Kaiming", restart=True),
    "magnitude_dense": Arm(
        _paper(regrow="magnitude", value="dense"), "rule magnitude, value dense", restart=True
    ),
    "faster": Arm(
        _paper(regrow="magnitude", value="dense"),
        "magnitude_dense; regrown weights train 3 times as fast",
        restart=True,
        tag="faster",
    ),
    "damaged": Arm(
        _paper(regrow="magnitude", value="dense", ssim_below=0.0),
        "magnitude_dense; only the damaged layers",
        restart=True,
    ),
    "two_rounds": Arm(
        _paper(rounds=2, regrow="magnitude", value="dense"),
        "magnitude_dense in two rounds",
        restart=True,
    ),
    "shallow": Arm(
        lambda at, seed: bidirectional_paper(
            at.sparsity, at.shallow, at.halves, regrow="magnitude", value="dense", seed=seed
        ),
        "magnitude_dense from a shallow overshoot, one cosine",
    ),
    "layers_ssim_fill": Arm(_paper(layers="ssim_fill"), "budget: fill by damage", restart=True),
    "layers_ssim": Arm(
        _paper(layers="ssim_proportional"), "budget: in proportion to damage", restart=True
    ),
    "layers_learned": Arm(_learned, "budget: learned controller, search counted", restart=True),
}
