"""One deep cut, then a geometric tail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import Unpack

from regrow.engine.program import Program
from regrow.parts.schedule.hybrid import Hybrid
from regrow.recipes.common import Cut, interval, paced


def hybrid(
    sparsity: float = 0.97,
    epochs: int = 60,
    first: float = 0.8,
    cuts: int = 4,
    *,
    tail: Literal["original", "survivors"] = "original",
    patience: int | Sequence[int] | None = None,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Cut once to `first`, then geometrically to the target (few-shot).

    Args:
        sparsity: the fraction removed at the end.
        epochs: fine-tuning in all; the first cut and each of the tail get an equal share.
        first: the fraction removed by the first cut.
        cuts: number of cuts of the tail.
        tail: of what the tail's geometric steps are shares; see the schedule `Hybrid`.
        patience: as in `iterative`.
        seed: of random parts.
        cut: see `Cut`.

    Source:
        arXiv 2508.13836 (2025), the hybrid (few-shot) strategy.

    Departures:
        n tail cuts are n cuts: the target is met exactly, where the authors' code stops one short.
    """
    schedule = Hybrid(sparsity, first, cuts, interval(epochs, cuts + 1), tail)
    return paced(schedule, schedule.sparsities, epochs, patience, cut, seed)
