"""Time in training, with its unit: a length or a position is never a bare number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from regrow.core.errors import RegrowError

Unit = Literal["epoch", "iteration"]
_SUFFIX: dict[str, Unit] = {"ep": "epoch", "it": "iteration"}


@dataclass(frozen=True)
class Step:
    """A number of epochs or of iterations; an iteration is one step of the optimiser.

    Raises:
        RegrowError: the value is negative or no integer, or the unit is another.
    """

    value: int
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 0:
            raise RegrowError(
                f"a step is a whole number >= 0 of epochs or iterations; got {self.value!r}."
            )
        if self.unit not in _SUFFIX.values():
            raise RegrowError(f"a step's unit is 'epoch' or 'iteration'; got {self.unit!r}.")

    @classmethod
    def epochs(cls, value: int) -> Step:
        return cls(value, "epoch")

    @classmethod
    def iterations(cls, value: int) -> Step:
        return cls(value, "iteration")

    @classmethod
    def of(cls, value: Step | int | str) -> Step:
        """A step from itself, from an integer (epochs), or from text such as "40ep", "1000it".

        Raises:
            RegrowError: the text is of another form.
        """
        if isinstance(value, Step):
            return value
        if isinstance(value, int):
            return cls.epochs(value)
        match = re.fullmatch(r"\s*(\d+)\s*(ep|it)?\s*", str(value))
        if not match:
            raise RegrowError(
                f"{value!r} is no step; write epochs as '40ep', iterations as '1000it'."
            )
        return cls(int(match[1]), _SUFFIX[match[2] or "ep"])

    def __str__(self) -> str:
        return f"{self.value}{'ep' if self.unit == 'epoch' else 'it'}"


START = Step(0)
EPOCH = Step(1)


def nth(step: Step, every: Step) -> int | None:
    """Which multiple of `every` the step is, from 0; None between multiples or in other units."""
    if step.unit != every.unit:
        return None
    index, rest = divmod(step.value, max(every.value, 1))
    return None if rest else index
