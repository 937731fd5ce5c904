"""Student intervals against scipy, a closed form, and their own promise."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regrow.bench.statistics import (
    Interval,
    bootstrap_interval,
    holm,
    paired_difference,
    standard_deviation,
    student_interval,
    student_p,
)
from regrow.core.errors import RegrowError

samples = st.lists(
    st.integers(-10_000, 10_000).map(lambda whole: whole / 10_000), min_size=2, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(values=samples, confidence=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_is_scipys_of_one_sample(values: list[float], confidence: float) -> None:
    got = student_interval(values, confidence)
    assert got.n == len(values)
    assert got.low is not None
    assert got.high is not None
    assert got.mean == pytest.approx(np.mean(values), abs=1e-12)
    scale = np.std(values, ddof=1) / math.sqrt(len(values))
    if scale < 1e-12:
        assert got.high - got.low < 1e-10
        return
    low, high = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=scale)
    assert got.low == pytest.approx(low, abs=1e-9)
    assert got.high == pytest.approx(high, abs=1e-9)


def test_two_values_have_the_closed_form_of_the_cauchy_quantile() -> None:
    got = student_interval([1.0, 3.0], 0.95)
    half = math.tan(math.pi * 0.475) * math.sqrt(2.0) / math.sqrt(2.0)
    assert got.low == pytest.approx(2.0 - half)
    assert got.high == pytest.approx(2.0 + half)


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=3, max_size=9))
def test_paired_difference_is_scipys_paired_test(pairs: list[tuple[int, int]]) -> None:
    a = {seed: x / 1000 for seed, (x, _) in enumerate(pairs)}
    b = {seed: y / 1000 for seed, (_, y) in enumerate(pairs)}
    gaps = {x - y for x, y in pairs}
    got = paired_difference(a, b)
    if len(gaps) == 1:
        assert got.mean == pytest.approx(gaps.pop() / 1000, abs=1e-12)
        return
    test = stats.ttest_rel(list(a.values()), list(b.values()))
    expected = test.confidence_interval(0.95)
    assert got.low == pytest.approx(expected.low, abs=1e-10)
    assert got.high == pytest.approx(expected.high, abs=1e-10)
    if min(abs(expected.low), abs(expected.high)) > 1e-9:
        assert got.includes_zero == (test.pvalue > 0.05)


def test_pairs_by_seed_and_leaves_the_others_out() -> None:
    a = {3: 0.9, 1: 0.8, 2: 0.7, 9: 0.0}
    b = {1: 0.7, 2: 0.7, 3: 0.6, 8: 1.0}
    got = paired_difference(a, b)
    assert got == student_interval([0.8 - 0.7, 0.0, 0.9 - 0.6])
    assert got.n == 3


def test_one_seed_has_a_mean_and_no_bounds() -> None:
    got = paired_difference({0: 0.9}, {0: 0.85, 1: 0.2})
    assert got == Interval(0.9 - 0.85, None, None, 1)
    assert got.includes_zero is None
    assert standard_deviation([0.4]) is None


def test_equal_values_have_an_interval_of_no_width_that_tells_nothing() -> None:
    got = student_interval([0.25, 0.25, 0.25])
    assert got == Interval(0.25, 0.25, 0.25, 3)
    assert got.includes_zero is None
    assert student_p([0.25, 0.25, 0.25]) is None
    assert student_interval([0.0, 0.0]).includes_zero is True
    assert student_p([0.0, 0.0]) == 1.0
    # As differences of floats are.
    same = paired_difference({0: 86.46, 1: 81.13, 2: 72.02}, {0: 86.22, 1: 80.89, 2: 71.78})
    assert same.includes_zero is None


def test_on_a_grid_of_accuracies_differences_are_claimed_as_seldom_as_the_level_says() -> None:
    """Ten arms without any difference, three seeds, 360 test samples."""
    generator, trials = np.random.default_rng(0), 2_000
    claimed = certain = 0
    for _ in range(trials):
        tests = {}
        for arm, differences in enumerate(np.round(generator.normal(0, 0.5, (10, 3)) * 3.6) / 3.6):
            p = student_p(differences)
            if p is not None:
                tests[str(arm)] = p
        claimed += bool(holm(tests))
        certain += bool(holm(tests)) or len(tests) < 10  # were equal differences a proof
    assert claimed / trials <= 0.05
    assert certain / trials > 0.12


@settings(max_examples=40, deadline=None)
@given(values=samples)
def test_standard_deviation_is_numpys(values: list[float]) -> None:
    assert standard_deviation(values) == pytest.approx(np.std(values, ddof=1), abs=1e-12)


def test_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    generator = np.random.default_rng(20240501)
    trials, covered, alone = 2000, 0, 0
    for _ in range(trials):
        seed_effect = generator.normal(0.0, 1.0, 5)
        a = dict(enumerate(seed_effect + 0.3 + generator.normal(0.0, 0.1, 5)))
        b = dict(enumerate(seed_effect + generator.normal(0.0, 0.1, 5)))
        got = paired_difference(a, b)
        assert got.low is not None
        assert got.high is not None
        covered += got.low <= 0.3 <= got.high
        alone += not got.includes_zero
    # Three standard errors of a proportion of 0.95 over 2000 trials are 0.0146.
    assert covered / trials == pytest.approx(0.95, abs=0.0146)
    # Without pairing the seeds' own spread, ten times the noise, would hide the difference.
    assert alone / trials > 0.9


def test_bootstrap_of_few_values_is_that_of_all_resamples() -> None:
    """Against all 5^5 resamples, with the bias correction and acceleration by their formulas."""
    values = np.array([0.3, -0.1, 0.8, 0.5, 0.2])
    every = np.array(list(itertools.product(values, repeat=5))).mean(1)
    normal = NormalDist()
    below = (np.sum(every < values.mean()) + np.sum(every <= values.mean())) / (2 * len(every))
    left = np.array([np.delete(values, i).mean() for i in range(5)])
    bent = left.mean() - left
    acceleration = np.sum(bent**3) / (6 * np.sum(bent**2) ** 1.5)
    bias = normal.inv_cdf(below)

    def bound(level: float) -> float:
        z = bias + normal.inv_cdf(level)
        return float(np.quantile(every, normal.cdf(bias + z / (1 - acceleration * z))))

    got = bootstrap_interval(values)
    assert got.low == pytest.approx(bound(0.025), abs=0.025)
    assert got.high == pytest.approx(bound(0.975), abs=0.025)
    assert got == bootstrap_interval(values)  # the same draws each time
    assert got.mean == pytest.approx(values.mean())


@pytest.mark.parametrize(("n", "low", "high"), [(5, 0.78, 0.88), (30, 0.91, 0.97)])
def test_bootstrap_is_too_narrow_for_few_seeds(n: int, low: float, high: float) -> None:
    generator, trials = np.random.default_rng(1), 300
    covered = 0
    for _ in range(trials):
        got = bootstrap_interval(generator.normal(0.3, 1.0, n))
        assert got.low is not None
        assert got.high is not None
        covered += got.low <= 0.3 <= got.high
    assert low <= covered / trials <= high


def test_bootstrap_without_spread_or_with_one_value() -> None:
    assert bootstrap_interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 3)
    assert bootstrap_interval([0.5]) == Interval(0.5, None, None, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: student_interval([]), "no values"),
        (lambda: student_interval([0.5, math.nan]), "finite"),
        (lambda: student_interval([0.5, 0.6], 1.0), "between 0 and 1"),
        (lambda: student_interval([0.5, 0.6], 95), "between 0 and 1"),
        (lambda: standard_deviation([math.inf, 1.0]), "finite"),
        (lambda: paired_difference({0: 0.5}, {1: 0.5}), "no seed is common"),
    ],
)
def test_bad_input_is_refused(call: object, words: str) -> None:
    with pytest.raises(RegrowError, match=words):
        call()  # type: ignore[operator]
