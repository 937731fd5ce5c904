"""GraSP: one cut before training that spares the gradient's norm."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from regrow.engine.program import Program
from regrow.recipes.common import Scope, at_the_start


def grasp(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    criterion: Any = "grasp",
    seed: int = 0,
    **scope: Unpack[Scope],
) -> Program:
    """Cut initial weights once by w (Hg), which preserves the flow of gradients, then train.

    Args:
        sparsity: the fraction removed.
        epochs: training in all, from the initial weights.
        criterion: ranks what is cut.
        seed: of random parts.
        scope: see `Scope`.

    Source:
        Wang et al. 2020, "Picking winning tickets before training by preserving gradient flow",
        algorithm 1.

    Departures:
        Those of the criterion `Grasp`: no temperature, and batches in place of ten samples a class.
    """
    return at_the_start(sparsity, epochs, criterion, seed, scope)
