"""COPS: one cut before training, the best by one score that others find good enough."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from regrow.engine.program import Program
from regrow.parts.criteria.cops import Cops
from regrow.recipes.common import Scope, at_the_start


def cops(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    criterion: str = "taylor",
    controls: Sequence[str] = ("synflow",),
    least: Sequence[float] = (0.9,),
    seed: int = 0,
    **scope: Unpack[Scope],
) -> Program:
    """Cut initial weights once by a main score under constraints on others, then train.

    Args:
        sparsity: the fraction removed.
        epochs: training in all, from the initial weights.
        criterion: the name of the main score; "taylor" is SNIP's.
        controls: names of scores that must keep a share of their best sum.
        least: that share, one for each control; with none, `()`, the smallest share kept of the
            main score and of one control is as large as can be.
        seed: of random parts.
        scope: see `Scope`.

    Source:
        Wimmer, Mehnert and Condurache 2021, "COPS: controlled pruning before training starts"
        (arXiv 2107.12673).

    Departures:
        A reconstruction; see the criterion `Cops`.

    Raises:
        RegrowError: see the criterion `Cops`.
    """
    made = Cops(criterion, tuple(controls), tuple(least))
    return at_the_start(sparsity, epochs, made, seed, scope)
