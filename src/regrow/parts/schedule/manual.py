"""Targets listed by hand."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.step import Step


@dataclass(frozen=True)
class Manual:
    """The listed sparsities at the listed steps; a falling sparsity asks for regrowth.

    Source: the manual strategy of the study behind arXiv 2508.13836 (2025).

    Raises:
        RegrowError: the lists are empty, of different lengths, or the steps do not increase.
    """

    sparsities: tuple[float, ...]
    at: tuple[Step, ...]

    def __post_init__(self) -> None:
        # A recipe file gives lists and plain numbers; the value is hashable all the same.
        object.__setattr__(self, "sparsities", tuple(self.sparsities))
        object.__setattr__(self, "at", tuple(Step.of(step) for step in self.at))
        for sparsity in self.sparsities:
            check_sparsity(sparsity)
        if not self.at or len(self.at) != len(self.sparsities):
            raise RegrowError(
                f"a manual schedule needs one step for each sparsity; got {len(self.sparsities)} "
                f"sparsities and {len(self.at)} steps."
            )
        values = [step.value for step in self.at]
        if len({step.unit for step in self.at}) > 1 or values != sorted(set(values)):
            raise RegrowError(f"the steps must increase and be of one unit; got {self.at}.")

    @property
    def sparsity(self) -> float:
        return self.sparsities[-1]

    @property
    def last(self) -> Step:
        return self.at[-1]

    def target(self, step: Step) -> float | None:
        return 1.0 - self.sparsities[self.at.index(step)] if step in self.at else None
