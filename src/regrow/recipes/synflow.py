"""SynFlow: many small cuts before training, by what flows through the network."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from regrow.engine.program import Program
from regrow.recipes.common import Scope, at_the_start


def synflow(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    rounds: int = 100,
    criterion: Any = "synflow",
    seed: int = 0,
    **scope: Unpack[Scope],
) -> Program:
    """Cut initial weights in many rounds by synaptic flow, without data, then train what stays.

    Args:
        sparsity: the fraction removed.
        epochs: training in all, from the initial weights.
        rounds: of the cut; after round j of n the density is the (j / n)th power of the target.
        criterion: ranks what is cut.
        seed: of random parts.
        scope: see `Scope`.

    Source:
        Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving
        synaptic flow", algorithm 1.

    Departures:
        At least `floor` weights stay in each layer, whatever the scores say.
    """
    return at_the_start(sparsity, epochs, criterion, seed, scope, rounds=rounds)
