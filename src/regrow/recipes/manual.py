"""Targets listed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from typing_extensions import Unpack

from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.schedule.manual import Manual
from regrow.recipes.common import Cut, plan


def manual(
    sparsities: Sequence[float] = (0.8, 0.9, 0.97),
    at: Sequence[int | str] = (0, 20, 40),
    epochs: int = 60,
    *,
    regrow: Any = "gradient",
    value: Any = "zero",
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Reach listed sparsities at listed epochs; a falling sparsity grows weights back.

    Args:
        sparsities: the targets in order.
        at: when each is reached, in epochs (or "500it").
        epochs: training in all.
        regrow, value: the rule and value wherever the sparsity falls.
        seed: of random parts.
        cut: see `Cut`.

    Source:
        the manual strategy of the study behind arXiv 2508.13836 (2025).
    """
    schedule = Manual(tuple(sparsities), tuple(Step.of(step) for step in at))
    falls = any(after < before for before, after in pairwise(sparsities))
    grow = Regrowth(RULES.build(regrow), VALUES.build(value)) if falls else None
    return Program((Stage(plan(schedule, cut, grow), Step.epochs(epochs)),), seed)
