"""Schedules against their closed forms."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import RegrowError
from regrow.core.protocols import Schedule
from regrow.core.step import Step
from regrow.parts.schedule.constant import Constant
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.geometric import Geometric
from regrow.parts.schedule.hybrid import Hybrid
from regrow.parts.schedule.manual import Manual
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.rebound import Rebound
from regrow.parts.schedule.steady import Steady

EP, IT = Step.epochs, Step.iterations
CUTS: list[tuple[Any, dict[str, Any]]] = [
    (Constant, {}),
    (Geometric, {}),
    (Hybrid, {"tail": "original"}),
    (Hybrid, {"tail": "survivors"}),
]


def increments(sparsities: tuple[float, ...], start: float = 0.0) -> list[float]:
    """p_i: what each cut removes, as a fraction of the original count."""
    return [b - a for a, b in zip((start, *sparsities), sparsities, strict=False)]


def events(schedule: Schedule, upto: int, unit: Any = "epoch") -> dict[int, float]:
    """Step number -> sparsity, of all events."""
    targets = {i: schedule.target(Step(i, unit)) for i in range(upto + 1)}
    return {i: 1 - target for i, target in targets.items() if target is not None}


def test_constant_is_an_equal_share_of_the_original() -> None:
    assert increments(Constant(0.9, 6).sparsities) == pytest.approx([0.15] * 6)
    assert increments(Constant(0.9, 4, initial=0.5).sparsities, 0.5) == pytest.approx([0.1] * 4)


def test_geometric_is_an_equal_share_of_the_survivors() -> None:
    p, n = 0.97, 7
    q = 1 - (1 - p) ** (1 / n)
    expected = [q * (1 - q) ** (i - 1) for i in range(1, n + 1)]
    assert increments(Geometric(p, n).sparsities) == pytest.approx(expected, abs=1e-12)
    # From a network that has been pruned already.
    densities = [1 - s for s in (0.5, *Geometric(0.97, 4, initial=0.5).sparsities)]
    shares = [b / a for a, b in pairwise(densities)]
    assert shares == pytest.approx([0.06**0.25] * 4)


def test_twenty_cuts_of_a_fifth_leave_what_the_paper_starts_from() -> None:
    schedule = Geometric(1 - 0.8**20, 20)
    assert schedule.sparsity == pytest.approx(0.9885, abs=5e-5)
    assert schedule.sparsities == pytest.approx([1 - 0.8**i for i in range(1, 21)])


def test_hybrid_tail_relative_to_the_original() -> None:
    p, o, n = 0.96, 0.8, 5
    r = 1 - (1 - (p - o)) ** (1 / n)
    steps = increments(Hybrid(p, o, n).sparsities)
    assert steps == pytest.approx([o, *(r * (1 - r) ** i for i in range(n))], abs=1e-12)
    assert steps[1] == pytest.approx(0.0343, abs=5e-5)
    assert steps[-1] == pytest.approx(0.0298, abs=5e-5)
    assert steps[1] / steps[-1] < 1.16  # nearly constant


def test_hybrid_tail_relative_to_the_survivors() -> None:
    p, o, n = 0.96, 0.8, 5
    q = 1 - ((1 - p) / (1 - o)) ** (1 / n)
    steps = increments(Hybrid(p, o, n, tail="survivors").sparsities)
    assert steps == pytest.approx([o, *((1 - o) * q * (1 - q) ** i for i in range(n))], abs=1e-12)
    assert [round(step, 3) for step in steps[1:3]] == [0.055, 0.040]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CUTS), st.floats(0, 0.999), st.floats(0, 1), st.integers(1, 60))
def test_steps_sum_to_the_sparsity_and_never_turn_back(
    kind: tuple[Any, dict[str, Any]], p: float, share: float, n: int
) -> None:
    make, options = kind
    first = p * share
    schedule = (
        make(p, n, initial=first, **options) if make is not Hybrid else make(p, first, n, **options)
    )
    start = 0.0 if make is Hybrid else first
    steps = increments(schedule.sparsities, start)
    assert sum(steps) == pytest.approx(p - start, abs=1e-8)
    assert min(steps) >= -1e-12
    assert schedule.sparsities[-1] == schedule.sparsity == p  # to the last bit
    assert len(steps) == (n + 1 if make is Hybrid else n)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CUTS),
    st.integers(1, 9),
    st.integers(1, 7),
    st.sampled_from(["epoch", "iteration"]),
)
def test_cuts_fall_on_multiples_of_the_interval(
    kind: tuple[Any, dict[str, Any]], n: int, every: int, unit: Any
) -> None:
    make, options = kind
    args = (0.9, 0.5, n) if make is Hybrid else (0.9, n)
    schedule = make(*args, every=Step(every, unit), **options)
    count = n + (make is Hybrid)
    assert schedule.last == Step(every * (count - 1), unit)
    seen = events(schedule, every * (count + 2), unit)
    assert list(seen) == [every * i for i in range(count)]
    assert list(seen.values()) == pytest.approx(schedule.sparsities)
    assert schedule.target(schedule.last) == 1 - 0.9
    other = "iteration" if unit == "epoch" else "epoch"
    assert events(schedule, every * count, other) == {}


def test_one_shot_cuts_once_at_the_start() -> None:
    assert events(OneShot(0.9), 5) == {0: pytest.approx(0.9)}
    assert events(OneShot(0.9), 5, "iteration") == {}
    assert OneShot(0.9).last == EP(0)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0, 0.99), st.floats(0, 1), st.integers(0, 10), st.integers(1, 40), st.integers(1, 50)
)
def test_cubic(final: float, share: float, start: int, window: int, every: int) -> None:
    initial = final * share
    ramp = Cubic(final, IT(start + window), IT(start), IT(every), initial)
    seen = events(ramp, start + window + 20, "iteration")
    assert set(seen) == {*range(start, start + window, every), start + window}
    for t, sparsity in seen.items():
        left = 1 - (t - start) / window
        expected = final + (initial - final) * left**3
        assert sparsity == pytest.approx(expected, abs=1e-12)
    assert ramp.target(ramp.last) == 1 - final  # exactly, also where every does not divide
    values = list(seen.values())
    assert all(a <= b + 1e-12 for a, b in pairwise(values))


def test_cubic_by_hand() -> None:
    ramp = Cubic(0.8, EP(10), EP(2), EP(3))
    assert events(ramp, 20) == {
        2: pytest.approx(0.0),
        5: pytest.approx(0.8 * (1 - 0.625**3)),
        8: pytest.approx(0.8 * (1 - 0.25**3)),
        10: pytest.approx(0.8),
    }


def test_manual_reaches_what_is_listed() -> None:
    schedule = Manual([0.5, 0.9, 0.8], [0, "3ep", EP(7)])  # type: ignore[arg-type,list-item]
    assert events(schedule, 20) == {
        0: pytest.approx(0.5),
        3: pytest.approx(0.9),
        7: pytest.approx(0.8),
    }
    assert (schedule.sparsity, schedule.last) == (0.8, EP(7))
    assert hash(schedule) == hash(Manual((0.5, 0.9, 0.8), (EP(0), EP(3), EP(7))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneShot(1.0), "sparsity is the fraction removed, in [0, 1); got 1.0"),
        (lambda: OneShot(97), "For 97 % write 0.97"),
        (lambda: OneShot(float("nan")), "got nan"),
        (lambda: OneShot("0.9"), "got '0.9'"),  # type: ignore[arg-type]
        (lambda: Constant(0.9, 0), "at least one cut; got cuts=0"),
        (lambda: Geometric(0.9, 2, EP(0)), "an interval of at least one step; got every=0ep"),
        (lambda: Geometric(0.5, 2, initial=0.6), "starts at sparsity 0.6 beyond its target 0.5"),
        (lambda: Constant(0.5, 2, initial=-0.1), "initial sparsity is the fraction removed"),
        (lambda: Hybrid(0.7, 0.8, 3), "starts at sparsity 0.8 beyond"),
        (lambda: Hybrid(0.9, 0.8, 1, EP(0)), "the tail needs an interval"),
        (lambda: Hybrid(0.9, 0.8, 3, tail="other"), "got 'other'"),  # type: ignore[arg-type]
        (lambda: Cubic(0.9, EP(5), IT(1)), "must be of one unit"),
        (lambda: Cubic(0.9, EP(5), EP(5)), "start < end"),
        (lambda: Cubic(0.9, EP(5), every=EP(0)), "every >= 1"),
        (lambda: Cubic(0.5, EP(5), initial=0.6), "starts at 0.6, beyond 0.5"),
        (lambda: Manual((), ()), "0 sparsities and 0 steps"),
        (lambda: Manual((0.5, 0.6), (EP(0),)), "2 sparsities and 1 steps"),
        (lambda: Manual((0.5, 0.6), (EP(3), EP(3))), "the steps must increase"),
        (lambda: Manual((0.5, 0.6), (EP(0), IT(3))), "of one unit"),
        (lambda: Manual((0.5, 1.2), (EP(0), EP(3))), "got 1.2"),
    ],
)
def test_what_no_schedule_can_mean_is_refused(make: Any, message: str) -> None:
    with pytest.raises(RegrowError, match=re.escape(message)):
        make()


def test_a_ramp_in_iterations_starts_at_zero_by_default() -> None:
    ramp = Cubic(0.9, IT(500), every=IT(100))
    assert ramp.target(IT(0)) == 1.0
    assert ramp.target(IT(500)) == pytest.approx(0.1)
    assert ramp.target(EP(0)) is None


def test_rebound_is_the_cubic_ramp_and_a_straight_way_back() -> None:
    way = Rebound(0.9, 0.97, EP(4), EP(8), EP(2), initial=0.5)
    ramp = Cubic(0.97, EP(4), every=EP(2), initial=0.5)
    found = events(way, 12)
    assert {i: s for i, s in found.items() if i <= 4} == pytest.approx(events(ramp, 4))
    assert {i: s for i, s in found.items() if i > 4} == pytest.approx({6: 0.935, 8: 0.9})
    assert way.last == EP(8)
    assert way.target(IT(4)) is None


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.floats(0.1, 0.9))
def test_rebound_meets_overshoot_and_target_whatever_the_interval(
    peak: int, back: int, every: int, sparsity: float
) -> None:
    way = Rebound(sparsity, 0.95, IT(peak), IT(peak + back), IT(every))
    found = events(way, peak + back + 3, "iteration")
    assert found[peak] == pytest.approx(0.95)
    assert found[peak + back] == pytest.approx(sparsity)
    assert max(found) == peak + back
    listed = [found[i] for i in sorted(found)]
    top = listed.index(max(listed))
    assert listed[: top + 1] == sorted(listed[: top + 1])
    assert listed[top:] == sorted(listed[top:], reverse=True)


def test_rebound_without_overshoot_holds() -> None:
    assert events(Rebound(0.9, 0.9, EP(1), EP(3)), 5) == pytest.approx(
        {0: 0, 1: 0.9, 2: 0.9, 3: 0.9}
    )


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ((0.9, 0.8, EP(1), EP(2)), "must not be below"),
        ((0.9, 0.95, EP(2), EP(2)), "0 < peak < end"),
        ((0.9, 0.95, EP(0), EP(2)), "0 < peak < end"),
        ((0.9, 0.95, EP(1), IT(2)), "of one unit"),
        ((0.9, 0.95, EP(1), EP(2), EP(0)), "every >= 1"),
    ],
)
def test_rebound_refuses(given_: Any, message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        Rebound(*given_)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(1, 12),
    st.floats(0.0, 0.9),
    st.sampled_from(["epoch", "iteration"]),
)
def test_steady_is_a_ramp_and_goes_on_at_its_target(
    ramp: int, more: int, every: int, initial: float, unit: Any
) -> None:
    end = ramp + more
    steady = Steady(0.95, Step(end, unit), Step(every, unit), Step(ramp, unit), initial)
    found = events(steady, end + 5, unit)
    wanted = {step for step in range(1, end + 1) if step % every == 0} | {ramp, end}
    assert found.keys() == wanted
    assert steady.last.value == max(found)
    for step, sparsity in found.items():
        left = max(0.0, 1 - step / ramp) ** 3
        assert sparsity == pytest.approx(0.95 + (initial - 0.95) * left)
    assert found[ramp] == found[end] == 1 - (1 - 0.95)
    other = "epoch" if unit == "iteration" else "iteration"
    assert steady.target(Step(ramp, other)) is None


def test_steady_without_a_ramp_has_one_target_and_no_event_at_the_start() -> None:
    assert events(Steady(0.9, EP(7), EP(3)), 9) == dict.fromkeys((3, 6, 7), 1 - (1 - 0.9))
