"""No target: the sparsity is what training makes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from regrow.core.step import Step


@dataclass(frozen=True)
class Outcome:
    """Sparsity is an outcome, not a request; for plans with a reparametrisation.

    Attributes:
        last: until when it moves; what is chosen among epochs is chosen after it.
    """

    last: Step = field(default_factory=lambda: Step.epochs(0))

    @property
    def sparsity(self) -> float:
        """What is asked for: none."""
        return 0.0

    def target(self, step: Step) -> float | None:
        return None
