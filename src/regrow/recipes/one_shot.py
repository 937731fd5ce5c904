"""One cut, then fine-tuning: the one-way control."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from regrow.engine.program import Program
from regrow.parts.schedule.one_shot import OneShot
from regrow.recipes.common import Cut, paced


def one_shot(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    patience: int | Sequence[int] | None = None,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Cut once to the target, then fine-tune.

    Args:
        sparsity: the fraction removed.
        epochs: fine-tuning after the cut; with patience, the most.
        patience: stop after so many epochs without a better signal; None trains all epochs.
        seed: of random parts.
        cut: see `Cut`.

    Source:
        arXiv 2508.13836 (2025), the one-shot strategy.
    """
    return paced(OneShot(sparsity), (sparsity,), epochs, patience, cut, seed)
