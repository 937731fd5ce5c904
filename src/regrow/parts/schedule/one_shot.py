"""One cut."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.core.budget import check_sparsity
from regrow.core.step import Step


@dataclass(frozen=True)
class OneShot:
    """One event at the start of the stage; also the regrowth step of `bidirectional_paper`.

    Source: arXiv 2508.13836 (2025), p_1 = p.

    Raises:
        RegrowError: the sparsity is outside [0, 1).
    """

    sparsity: float

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)

    @property
    def last(self) -> Step:
        return Step.epochs(0)

    def target(self, step: Step) -> float | None:
        return 1.0 - self.sparsity if step == Step.epochs(0) else None
