"""Bidirectional pruning: weights leave and return all along, until the masks settle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth, globs
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.schedule.rebound import Rebound
from regrow.recipes.common import Scope, plan


def bidirectional(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    overshoot: float | None = None,
    peak: int | str | None = None,
    end: int | str | None = None,
    every: int | str = 1,
    exchange: float = 0.1,
    regrow: Any = "newton",
    value: Any = "zero",
    memory: float | None = None,
    layers: Any = "global",
    candidates: Sequence[str] = ("*",),
    ssim_below: float | None = None,
    criterion: Any = "saliency",
    seed: int = 0,
    **scope: Unpack[Scope],
) -> Program:
    """Cut along a cubic ramp, and at every event let some of the removed weights return.

    Up to `peak` the sparsity rises to the overshoot, then it comes back to the target until `end`.
    Every event cuts a little further than it must and regrows the difference, where the loss can
    fall most; that share falls to zero along a cosine until `end`. All epochs are one stage, so
    one learning-rate cycle goes over them.

    At equal budgets it is level with a gradual ramp by saliency, or half a point behind
    (docs/bidirectional.md).

    Args:
        sparsity: the fraction removed at the end.
        epochs: training in all.
        overshoot: the fraction removed at the peak; None: no further than the target.
        peak, end: when the sparsity is highest, and the last event; by default after a half of
            the epochs, and right after it or, with an overshoot, after three quarters.
        every: the interval of events. All three in epochs (5 or "5ep") or all in iterations
            ("100it").
        exchange: the share of the living weights that an event exchanges at first.
        regrow, value, layers: which removed weights return, with which value, and how many in
            each layer.
        memory: see `Plan`; needed for rules and values that read remembered weights.
        candidates, ssim_below: which layers may get weights back; see `Regrowth`.
        criterion: ranks what is cut.
        seed: of random parts.
        scope: see `Scope`.

    Source:
        After Liu and Sheng 2025, arXiv 2511.11675 (`bidirectional_paper` is theirs); the exchange
        after Liu et al. 2021, "Sparse training via boosting pruning plasticity with
        neuroregeneration". Ours: the rule, and the settings, by the study in
        docs/bidirectional.md.

    Raises:
        RegrowError: fewer than 3 epochs, an overshoot below the sparsity, or peak, end and
            interval out of order or of different units.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 3:
        raise RegrowError(
            f"epochs={epochs!r} must be a whole number of at least 3: up to the peak, to the last "
            "event, and after it. Two phases with epochs of their own are bidirectional_paper's."
        )
    top = Step.of(max(1, epochs // 2) if peak is None else peak)
    back = top.value + 1 if overshoot is None else max(top.value + 1, epochs * 3 // 4)
    last = Step(back, top.unit) if end is None else Step.of(end)
    way = Rebound(sparsity, sparsity if overshoot is None else overshoot, top, last, Step.of(every))
    grow = Regrowth(
        RULES.build(regrow),
        VALUES.build(value),
        ALLOCATIONS.build(layers),
        globs(candidates),
        ssim_below,
        exchange,
    )
    made = plan(way, {"criterion": criterion, **scope}, grow, memory)
    return Program((Stage(made, Step.epochs(epochs)),), seed)
