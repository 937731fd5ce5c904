"""One cut by lookahead, then fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from regrow.engine.program import Program
from regrow.recipes.common import Cut
from regrow.recipes.one_shot import one_shot


def lookahead(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    patience: int | Sequence[int] | None = None,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Cut a trained network once, each weight seen with its neighbouring layers; then fine-tune.

    Args:
        sparsity: the fraction removed.
        epochs: fine-tuning after the cut; with patience, the most.
        patience: stop after so many epochs without a better signal; None trains all epochs.
        seed: of random parts.
        cut: see `Cut`; the criterion is "lookahead", to which a table can give options, and rates
            by layer are an allocation.

    Source:
        Park et al. 2020, "Lookahead: a far-sighted alternative of magnitude-based pruning".

    Departures:
        All masks are chosen from the same weights (the paper's base mode), at one sparsity; layers
        compete globally unless an allocation says otherwise.
    """
    if cut.get("criterion") is None:
        cut["criterion"] = "lookahead"
    return one_shot(sparsity, epochs, patience=patience, seed=seed, **cut)
