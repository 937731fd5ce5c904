"""Several cuts with fine-tuning between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import Unpack

from regrow.core.errors import RegrowError
from regrow.engine.program import Program
from regrow.parts.schedule.constant import Constant
from regrow.parts.schedule.geometric import Geometric
from regrow.recipes.common import Cut, interval, paced

_SPACING: dict[str, type[Geometric] | type[Constant]] = {
    "geometric": Geometric,
    "constant": Constant,
}


def iterative(
    sparsity: float = 0.97,
    epochs: int = 60,
    cuts: int = 5,
    *,
    spacing: Literal["geometric", "constant"] = "geometric",
    patience: int | Sequence[int] | None = None,
    rewind: bool = False,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Cut in equal steps of the survivors (geometric) or of the original count (constant).

    Args:
        sparsity: the fraction removed at the end.
        epochs: fine-tuning in all; each cut gets an equal share, the last also the remainder.
        cuts: how many.
        spacing: of what the steps are equal shares.
        patience: wait for so many epochs without a better signal before the next cut, one number
            or one for each cut; the share of the epochs is then the cap.
        rewind: after every cut go back to the dense network's weights, as lottery tickets do.
        seed: of random parts.
        cut: see `Cut`.

    Source:
        arXiv 2508.13836 (2025), iterative geometric and iterative constant strategies; rewinding:
        Frankle and Carbin 2019, Renda et al. 2020.

    Raises:
        RegrowError: an unknown spacing, or fewer epochs than cuts.
    """
    if spacing not in _SPACING:
        raise RegrowError(f"spacing is 'geometric' or 'constant'; got {spacing!r}.")
    schedule = _SPACING[spacing](sparsity, cuts, interval(epochs, cuts))
    return paced(schedule, schedule.sparsities, epochs, patience, cut, seed, rewind=rewind)
