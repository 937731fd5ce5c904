from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.budget import Budget, check_sparsity, kept_count
from regrow.core.errors import RegrowError


@given(st.floats(0, 1, exclude_max=True))
def test_fractions_below_one_pass(value: float) -> None:
    assert check_sparsity(value) == value


def test_zero_passes_as_a_fraction() -> None:
    assert isinstance(check_sparsity(0), float)


@pytest.mark.parametrize(
    "bad", [1, 1.0, -0.01, float("nan"), float("inf"), True, False, "0.9", None, 250]
)
def test_what_is_no_fraction_is_refused(bad: Any) -> None:
    with pytest.raises(RegrowError, match=r"overshoot is the fraction removed, in \[0, 1\); got"):
        check_sparsity(bad, "overshoot")


@pytest.mark.parametrize(("percent", "fraction"), [(97, "0.97"), (99.5, "0.995"), (90.0, "0.9")])
def test_a_percentage_is_recognised(percent: float, fraction: str) -> None:
    with pytest.raises(RegrowError, match=f"For {percent:g} % write {fraction}"):
        check_sparsity(percent)


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_kept_count_is_the_nearest_and_comes_back(total: int, kept: int) -> None:
    kept = min(kept, total)
    assert kept_count(total, kept / total) == kept
    assert kept_count(total, 1 - (1 - kept / total)) == kept


def test_halves_go_to_the_even_count() -> None:
    assert [kept_count(2, d) for d in (0.25, 0.75)] == [0, 2]
    assert kept_count(1000, 1 - 0.9) == 100
    assert kept_count(14_715_584, 1 - 0.97) - kept_count(14_715_584, 1 - 0.99) == 294_312


LOWER, UPPER = {"a": 1, "b": 2}, {"a": 4, "b": 6}


@pytest.mark.parametrize("total", [3, 7, 10])
def test_a_budget_that_fits(total: int) -> None:
    assert Budget(total, LOWER, UPPER).total == total


def test_a_budget_that_does_not_fit_says_why() -> None:
    with pytest.raises(RegrowError, match=r"2 units to keep are fewer than the 3 .* 2 layers keep"):
        Budget(2, LOWER, UPPER)
    with pytest.raises(RegrowError, match="11 units to keep are more than the 10 that can be kept"):
        Budget(11, LOWER, UPPER)
    with pytest.raises(RegrowError, match=r"b: at least 7 .* at most 6"):
        Budget(9, {"a": 1, "b": 7}, UPPER)
