"""SNIP: one cut before training, by what the loss would notice first."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from regrow.engine.program import Program
from regrow.recipes.common import Scope, at_the_start


def snip(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    criterion: Any = "taylor",
    seed: int = 0,
    **scope: Unpack[Scope],
) -> Program:
    """Cut initial weights once by |w dL/dw|, then train what stays.

    Args:
        sparsity: the fraction removed.
        epochs: training in all, from the initial weights.
        criterion: ranks what is cut; "taylor" is the published score but for its scale.
        seed: of random parts.
        scope: see `Scope`.

    Source:
        Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity",
        algorithm 1.

    Departures:
        The gradient is the mean over as many batches as evidence is collected from, where the
        paper takes one.
    """
    return at_the_start(sparsity, epochs, criterion, seed, scope)
