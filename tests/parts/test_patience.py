"""Patience, epoch by epoch."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import RegrowError
from regrow.core.protocols import SignalSchedule, Update
from regrow.parts.schedule.patience import Patience


def signal(value: float) -> dict[str, float]:
    return {"val_accuracy": value, "other": 5.0}


def epochs_of_each_cut(
    part: Patience, after_cut: float | None, per_epoch: float = 0.5
) -> list[int]:
    """How many epochs each cut lasts on a flat signal."""
    update, lengths, epochs = part.start(), [], 0
    while not update.done:
        if update.target is not None and after_cut is not None:
            update = part.after_cut(update.state, signal(after_cut))
        update = part.update(update.state, signal(per_epoch))
        epochs += 1
        assert epochs < 10_000
        if update.target is not None or update.done:
            lengths.append(epochs)
            epochs = 0
    return lengths


def follow(part: Patience, values: Sequence[float], first: float | None = None) -> list[Update]:
    """The updates that a list of epochs causes."""
    update = part.start()
    if first is not None:
        update = part.after_cut(update.state, signal(first))
    updates = []
    for value in values:
        updates.append(update := part.update(update.state, signal(value)))
    return updates


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4))
def test_a_flat_signal_stops_at_exactly_p_epochs(p: int, cuts: int) -> None:
    part = Patience(tuple(0.2 * (i + 1) for i in range(cuts)), (p,))
    assert epochs_of_each_cut(part, after_cut=0.5) == [p] * cuts
    # Without a measurement after the cut the first epoch sets the mark.
    assert epochs_of_each_cut(part, after_cut=None) == [p + 1] * cuts


def test_a_list_of_patiences_whose_last_repeats() -> None:
    part = Patience((0.1, 0.2, 0.3, 0.4), (3, 1, 2))
    assert epochs_of_each_cut(part, 0.5) == [3, 1, 2, 2]
    assert epochs_of_each_cut(Patience((0.1,), (4, 9)), 0.5) == [4]


def test_targets_come_in_order_and_the_last_cut_ends_it() -> None:
    part = Patience((0.5, 0.8), (2,))
    assert isinstance(part, SignalSchedule)
    assert part.sparsity == 0.8
    assert part.start().target == pytest.approx(0.5)
    updates = follow(part, [1, 1, 1, 1, 1, 1])
    assert [u.target for u in updates] == [None, None, pytest.approx(0.2), None, None, None]
    assert [u.restore for u in updates] == [False, False, True, False, False, True]
    assert [u.done for u in updates] == [False] * 5 + [True]


def test_improvement_resets_the_wait_and_is_remembered() -> None:
    updates = follow(Patience((0.5,), (2,)), [0.6, 0.5], first=0.65)
    assert [u.remember for u in updates] == [False, False]
    assert updates[1].done  # Two epochs below what the cut left.
    updates = follow(Patience((0.5,), (2,)), [0.6, 0.5, 0.7, 0.7, 0.6])
    assert [u.remember for u in updates] == [True, False, True, False, False]
    assert [u.done for u in updates] == [False, False, False, False, True]
    assert updates[-1].restore


def test_what_follows_a_cut_is_measured_anew() -> None:
    """A deep cut never comes back to the accuracy of the one before, and must not have to."""
    part = Patience((0.5, 0.9), (2,))
    updates = follow(part, [0.9, 0.9, 0.9, 0.3, 0.4, 0.5, 0.5, 0.5])
    assert updates[2].target == pytest.approx(0.1)
    assert [u.remember for u in updates[3:]] == [True, True, True, False, False]
    assert updates[-1].done


def test_an_epoch_that_is_the_best_and_the_last_is_remembered_before_the_restore() -> None:
    update = follow(Patience((0.5, 0.9), (5,), cap=2), [0.1, 0.2])[-1]
    assert (update.remember, update.restore, update.target) == (True, True, pytest.approx(0.1))


def test_after_a_cut_its_weights_are_the_best_so_far() -> None:
    part = Patience((0.5,), (2,))
    update = part.after_cut(part.start().state, signal(0.4))
    assert update.remember
    assert (update.target, update.restore, update.done) == (None, False, False)


def test_the_least_improvement_is_strict() -> None:
    part = Patience((0.5,), (2,), min_delta=0.25)
    assert [u.remember for u in follow(part, [0.25, 0.5], first=0.0)] == [False, True]
    equal = Patience((0.5,), (1,))
    assert follow(equal, [0.5], first=0.5)[0].done


def test_the_cap_ends_a_cut_that_keeps_improving() -> None:
    part = Patience((0.5, 0.6), (3,), cap=4)
    updates = follow(part, [i / 100 for i in range(8)])
    assert [i for i, u in enumerate(updates, 1) if u.restore] == [4, 8]
    assert updates[-1].done


def test_a_falling_signal_can_be_the_good_one() -> None:
    part = Patience((0.5,), (2,), min_delta=0.1, monitor="loss", mode="min")
    state = part.after_cut(part.start().state, {"loss": 2.0}).state
    remembered = []
    for loss in (1.5, 1.45, 1.0, 3.0):
        update = part.update(state, {"loss": loss})
        state = update.state
        remembered.append(update.remember)
    assert remembered == [True, False, True, False]
    assert not update.done


def test_the_state_is_plain_data_and_is_not_written_to() -> None:
    part = Patience((0.5, 0.9), (2,))
    state = follow(part, [0.3])[-1].state
    frozen = json.dumps(state)
    assert json.loads(frozen) == state
    part.update(state, signal(0.9))
    part.after_cut(state, signal(0.9))
    assert json.dumps(state) == frozen


def test_signals_that_cannot_be_read_are_refused() -> None:
    part = Patience((0.5,))
    state = part.start().state
    with pytest.raises(RegrowError, match=r"'val_accuracy'.*given \['loss'\].*val_accuracy=\.\.\."):
        part.update(state, {"loss": 1.0})
    with pytest.raises(RegrowError, match="given nothing"):
        part.update(state, {})
    with pytest.raises(RegrowError, match="NaN"):
        part.update(state, signal(float("nan")))
    with pytest.raises(RegrowError, match="NaN"):
        part.after_cut(state, signal(float("nan")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsities": ()}, "at least one sparsity"),
        ({"patience": ()}, "one patience"),
        ({"patience": (3, 0)}, "at least one epoch; got (3, 0)"),
        ({"cap": 0}, "at least one epoch"),
        ({"mode": "up"}, "'max' or 'min'; got 'up'"),
        ({"sparsities": (0.5, 95)}, "For 95 % write 0.95"),
    ],
)
def test_what_patience_cannot_mean_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RegrowError, match=re.escape(message)):
        Patience(**{"sparsities": (0.5,), **options})
