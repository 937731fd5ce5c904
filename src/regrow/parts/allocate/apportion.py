"""Whole units from real shares: exact sums between bounds."""

from __future__ import annotations

from collections.abc import Mapping

from regrow.core.budget import Budget


def apportion(shares: Mapping[str, float], budget: Budget) -> dict[str, int]:
    """Counts as nearly proportional to the shares as the bounds allow, summing to the total.

    Real counts are x_l = min(upper_l, max(lower_l, t * share_l)) with the one t at which they
    sum to the total; whole counts round them down, and the units left over go to the largest
    fractions, then to the earliest layers that have room.

    Args:
        shares: how much of the total each layer wants, >= 0, in any unit.
        budget: feasible by construction.
    """
    names = list(shares)

    def real(scale: float) -> dict[str, float]:
        return {
            n: min(float(budget.upper[n]), max(float(budget.lower[n]), scale * shares[n]))
            for n in names
        }

    low, high = 0.0, 1.0
    positive = [n for n in names if shares[n] > 0]
    if positive:
        high = max((budget.upper[n] + 1) / shares[n] for n in positive)
    for _ in range(200):
        middle = (low + high) / 2
        if sum(real(middle).values()) < budget.total:
            low = middle
        else:
            high = middle
    wanted = real(high)
    # The bisection ends a rounding error above the integer where the exact value is one.
    counts = {n: min(budget.upper[n], int(wanted[n] + 1e-9)) for n in names}
    by_fraction = sorted(names, key=lambda n: counts[n] - wanted[n])
    left = budget.total - sum(counts.values())
    while left:
        # One unit each, unless layers without a share must take many.
        most = max(1, abs(left) // len(names))
        for name in by_fraction:
            if left > 0:
                step = min(most, left, budget.upper[name] - counts[name])
            else:
                step = -min(most, -left, counts[name] - budget.lower[name])
            counts[name] += step
            left -= step
    return counts
