"""Scores of one group made comparable with those of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from regrow.core.errors import unknown

_TINY = 1e-12


def _standard(scores: Tensor) -> Tensor:
    return (scores - scores.mean()) / (scores.std(correction=0) + _TINY)


NORMALISATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda scores: scores,
    "mean": lambda scores: scores / (scores.mean() + _TINY),
    "max": lambda scores: scores / (scores.max() + _TINY),
    "sum": lambda scores: scores / (scores.sum() + _TINY),
    "standard": _standard,
}
"""By name: as they are, or over the group's mean, largest or sum, or as standard scores."""


def normalise(scores: Tensor, name: str) -> Tensor:
    """Scores (units,) of one group, normalised.

    Raises:
        RegrowError: there is no such normalisation.
    """
    if name not in NORMALISATIONS:
        raise unknown("normalisation", name, NORMALISATIONS)
    return NORMALISATIONS[name](scores)
