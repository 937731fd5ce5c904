from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.core.errors import RegrowError
from regrow.core.step import Step, nth

STEPS = st.builds(Step, st.integers(0, 10**9), st.sampled_from(["epoch", "iteration"]))


@given(STEPS)
def test_text_comes_back(step: Step) -> None:
    assert Step.of(str(step)) == step
    assert Step.of(step) is step


@pytest.mark.parametrize(
    ("given_", "step"),
    [
        (40, Step.epochs(40)),
        ("40", Step.epochs(40)),
        ("40ep", Step.epochs(40)),
        (" 1000 it ", Step.iterations(1000)),
        ("0it", Step.iterations(0)),
    ],
)
def test_forms_that_are_read(given_: Any, step: Step) -> None:
    assert Step.of(given_) == step


def test_an_epoch_is_no_iteration() -> None:
    assert Step.epochs(3) != Step.iterations(3)
    assert Step.epochs(0) != Step.iterations(0)
    assert len({Step.epochs(3), Step.iterations(3), Step(3)}) == 2


@pytest.mark.parametrize("bad", ["", "ep", "-1ep", "1.5ep", "40 epochs", 1.5, None, "4it4"])
def test_other_forms_are_refused(bad: Any) -> None:
    with pytest.raises(RegrowError, match=r"'40ep'.*'1000it'"):
        Step.of(bad)


@pytest.mark.parametrize("bad", [-1, 1.0, True, "4", None])
def test_a_step_is_a_whole_number(bad: Any) -> None:
    with pytest.raises(RegrowError, match=r"a whole number >= 0"):
        Step(bad)
    with pytest.raises(RegrowError):
        Step.iterations(bad)


def test_a_unit_with_a_slip_is_not_taken_for_the_other() -> None:
    with pytest.raises(RegrowError, match=r"'epoch' or 'iteration'; got 'epochs'"):
        Step(3, "epochs")  # type: ignore[arg-type]


@given(STEPS, STEPS)
def test_nth_counts_multiples_of_the_interval(step: Step, every: Step) -> None:
    index = nth(step, every)
    if step.unit != every.unit:
        assert index is None
    elif index is None:
        assert step.value % max(every.value, 1)
    else:
        assert index * max(every.value, 1) == step.value
