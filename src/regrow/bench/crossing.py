"""Where one strategy overtakes another or falls behind it, from curves that are paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from regrow.bench.statistics import NOTHING
from regrow.core.errors import RegrowError

_STEPS = 2_001  # between the least and the greatest sparsity


@dataclass(frozen=True)
class Crossing:
    """The sparsity from which on a strategy is ahead of another, or behind it.

    Attributes:
        sparsity: where the mean difference changes its sign for the last time; None if it does not.
        low, high: of the sparsities at which the difference may well be zero; None where even
            the least or the greatest that was measured is among them.
        certain: whether there are any others.
        ahead: the sign of the mean difference from there on, or all along if nothing crosses; 0
            if it is zero throughout.
    """

    sparsity: float | None
    low: float | None
    high: float | None
    certain: bool
    ahead: int


def crossing(
    a: Mapping[float, Mapping[int, float]],
    b: Mapping[float, Mapping[int, float]],
    confidence: float = 0.95,
) -> Crossing:
    """Where a overtakes b, or falls behind it, by straight lines over the logarithm of the density.

    The interval holds all sparsities at which the paired Student interval of a - b includes zero
    (the inversion of Fieller, 1954). It covers as often as it says with as few as three seeds,
    where percentiles of bootstrapped crossings cover much less (tests/bench/test_crossing.py).

    Args:
        a, b: by sparsity and seed, a measurement such as test accuracy; what both have counts.
        confidence: in (0, 1).

    Raises:
        RegrowError: there are not two sparsities and two seeds that all of them have.
    """
    levels = sorted(s for s in a.keys() & b.keys() if s < 1)
    seeds = sorted(set.intersection(*(set(a[s]) & set(b[s]) for s in levels)) if levels else ())
    if len(levels) < 2 or len(seeds) < 2:
        raise RegrowError(
            "a crossing needs at least two sparsities and two seeds that both strategies have; "
            f"there are {len(levels)} and {len(seeds)}."
        )
    places = np.array([-math.log(1 - level) for level in levels])
    each = np.array([[a[s][seed] - b[s][seed] for s in levels] for seed in seeds])
    at = np.union1d(np.linspace(places[0], places[-1], _STEPS), places)
    lines = np.array([np.interp(at, places, one) for one in each])
    mean = lines.mean(0)
    spread = lines.std(0, ddof=1)
    half = stats.t.ppf((1 + confidence) / 2, len(seeds) - 1) * spread
    # Equal differences tell nothing of their spread (see `Interval.includes_zero`).
    open_ = (np.abs(mean) <= half / math.sqrt(len(seeds))) | (spread < NOTHING)
    whole = each.mean(0)
    signs = np.sign(whole)
    ahead = int(next((sign for sign in signs[::-1] if sign), 0))
    found = None
    if ahead and -ahead in signs:
        i = int(np.flatnonzero(signs == -ahead)[-1])
        share = -whole[i] / (whole[i + 1] - whole[i])
        found = float(1 - math.exp(-(places[i] + share * (places[i + 1] - places[i]))))
    where = np.flatnonzero(open_)
    low = high = None
    if len(where):
        low = None if open_[0] else float(1 - math.exp(-at[where[0]]))
        high = None if open_[-1] else float(1 - math.exp(-at[where[-1]]))
    return Crossing(found, low, high, bool(len(where) < len(at)), ahead)
