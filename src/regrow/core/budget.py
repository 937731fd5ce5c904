"""How much may stay: whole units, with bounds for every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from regrow.core.errors import RegrowError


def check_sparsity(value: float, what: str = "sparsity") -> float:
    """The value, if it is a fraction in [0, 1).

    Raises:
        RegrowError: it is not; a percentage is recognised and the fraction suggested.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < 1:
        hint = ""
        if isinstance(value, Real) and 1 < value < 100:
            hint = f" For {value:g} % write {value / 100:g}."
        raise RegrowError(f"{what} is the fraction removed, in [0, 1); got {value!r}.{hint}")
    return float(value)


def kept_count(total: int, density: float) -> int:
    """How many of `total` weights a density keeps: the nearest integer, halves to even."""
    return round(total * density)


@dataclass(frozen=True)
class Budget:
    """Units to keep in all, and the least and most in each layer.

    Attributes:
        total: units to keep over all layers.
        lower: the least per layer name (a floor of survivors, or what is alive already).
        upper: the most per layer name (its capacity).

    Raises:
        RegrowError: no allocation fits between the bounds.
    """

    total: int
    lower: Mapping[str, int]
    upper: Mapping[str, int]

    def __post_init__(self) -> None:
        for name, most in self.upper.items():
            if self.lower[name] > most:
                raise RegrowError(
                    f"{name}: at least {self.lower[name]} units must stay but at most {most} can; "
                    "lower the floor or exclude the layer."
                )
        least, most = sum(self.lower.values()), sum(self.upper.values())
        if self.total < least:
            raise RegrowError(
                f"{self.total} units to keep are fewer than the {least} that the floors of the "
                f"{len(self.lower)} layers keep; ask for a lower sparsity or a lower floor."
            )
        if self.total > most:
            raise RegrowError(
                f"{self.total} units to keep are more than the {most} that can be kept; ask for a "
                "higher sparsity, name more layers or choose a pattern that keeps more."
            )
