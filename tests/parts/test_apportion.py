"""Apportionment against exact arithmetic and all possible counts."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.budget import Budget
from regrow.parts.allocate.apportion import apportion


def real_counts(
    shares: list[int], lower: list[int], upper: list[int], total: int
) -> list[Fraction]:
    """min(upper, max(lower, t share)) with the t at which they sum to the total, exactly."""

    def at(t: Fraction) -> list[Fraction]:
        return [
            min(Fraction(u), max(Fraction(lo), t * s))
            for s, lo, u in zip(shares, lower, upper, strict=True)
        ]

    bends = sorted(
        {Fraction(b, s) for s, lo, u in zip(shares, lower, upper, strict=True) for b in (lo, u)}
    )
    for left, right in itertools.pairwise([Fraction(0), *bends]):
        low, high = sum(at(left)), sum(at(right))
        if low <= total <= high:
            part = (total - low) / (high - low) if high > low else Fraction(0)
            return at(left + part * (right - left))
    raise AssertionError("the budget is infeasible")


@st.composite
def budgets(draw: Any, most: int = 9) -> tuple[list[int], list[int], list[int], int]:
    size = draw(st.integers(1, 4))
    shares = draw(st.lists(st.integers(1, 20), min_size=size, max_size=size))
    upper = draw(st.lists(st.integers(0, most), min_size=size, max_size=size))
    lower = [draw(st.integers(0, u)) for u in upper]
    return shares, lower, upper, draw(st.integers(sum(lower), sum(upper)))


def run(shares: list[float], lower: list[int], upper: list[int], total: int) -> list[int]:
    names = [str(i) for i in range(len(shares))]
    budget = Budget(
        total, dict(zip(names, lower, strict=True)), dict(zip(names, upper, strict=True))
    )
    return list(apportion(dict(zip(names, shares, strict=True)), budget).values())


@settings(max_examples=150, deadline=None)
@given(budgets())
def test_no_whole_counts_are_nearer_to_the_real_ones(
    problem: tuple[list[int], list[int], list[int], int],
) -> None:
    shares, lower, upper, total = problem
    wanted = real_counts(*problem)

    def distance(counts: tuple[int, ...]) -> Fraction:
        return sum(((c - w) ** 2 for c, w in zip(counts, wanted, strict=True)), Fraction(0))

    counts = run([float(s) for s in shares], lower, upper, total)
    choices = itertools.product(*(range(lo, u + 1) for lo, u in zip(lower, upper, strict=True)))
    best = min(distance(choice) for choice in choices if sum(choice) == total)
    assert sum(counts) == total
    assert distance(tuple(counts)) == best
    assert all(abs(c - w) < 1 for c, w in zip(counts, wanted, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(1, 40), st.data())
def test_a_larger_share_never_gets_less(shares: list[int], most: int, data: st.DataObject) -> None:
    size = len(shares)
    total = data.draw(st.integers(0, most * size))
    counts = run([float(s) for s in shares], [0] * size, [most] * size, total)
    for (s, c), (t, d) in itertools.pairwise(sorted(zip(shares, counts, strict=True))):
        assert c <= d
        assert s < t or abs(c - d) <= 1


def test_equal_shares_go_to_the_earlier_layer() -> None:
    assert run([1.0, 1.0, 1.0], [0] * 3, [9] * 3, 5) == [2, 2, 1]


def test_exact_shares_come_back_as_they_are() -> None:
    wanted = [1_234_567, 89, 7_777_777, 1]
    for unit in (1.0, 1 / 3, 1e-6, 1e6):
        assert run([w * unit for w in wanted], [0] * 4, [10**7] * 4, sum(wanted)) == wanted


def test_layers_without_a_share_take_only_what_nobody_else_can() -> None:
    assert run([0.0, 2.0, 0.0], [0, 0, 1], [9, 4, 9], 4) == [0, 3, 1]
    assert run([0.0, 2.0, 0.0], [0, 0, 1], [9, 4, 9], 9) == [2, 4, 3]
    assert run([0.0, 0.0], [0, 0], [3, 9], 10) == [3, 7]


def test_millions_of_units_for_layers_without_a_share_are_quick() -> None:
    begin = time.perf_counter()
    counts = run([0.0, 0.5, 0.0], [0, 0, 0], [9_000_000, 10, 2_000_000], 8_000_010)
    assert counts[1] == 10
    assert sum(counts) == 8_000_010
    assert time.perf_counter() - begin < 0.5
