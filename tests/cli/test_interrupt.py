"""Ctrl-C at a bad moment: in a destructor, whose exceptions Python drops."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from blobs_example import MODULE, STUDY, call

from regrow.cli.interrupt import Interrupt

JITTER = "def jitter(points, generator):\n"
DROPS = """
import signal
class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

calls = []

def jitter(points, generator):
    calls.append(points)
    if len(calls) > BEFORE:
        Interrupted()
"""


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Python would tell of dropped exceptions."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    return told


STEPS = -(-120 // 16)  # of an epoch


def drop(blobs: str, before: int) -> None:
    """From now on every batch of the task drops an interrupt, but for so many at first."""
    module = Path(blobs.removesuffix(":task") + ".py")
    module.write_text(MODULE.replace(JITTER, DROPS.replace("BEFORE", str(before))))
    assert module.read_text() != MODULE


# The first batch is a trial before anything is trained; compare then measures a few steps.
@pytest.mark.parametrize(("command", "before"), [("run", 1), ("compare", 1 + STEPS)])
def test_a_dropped_interrupt_counts_after_the_epoch(
    command: str, before: int, dropped: list[Any], blobs: str
) -> None:
    drop(blobs, before)
    if command == "run":
        epochs = ("--set", "training.dense_epochs=100000")
        done = call("run", "one_shot", *epochs, "--task", blobs, "--out", "out")
        assert "regrow resume out" in done.err
    else:
        Path("study.toml").write_text(STUDY.format(task=blobs, epochs=100000))
        done = call("compare", "study.toml", "--out", "out")
        assert "goes on where it was" in done.out
    assert done.code == 130
    assert [each.exc_type for each in dropped] == [KeyboardInterrupt] * STEPS  # one epoch


def test_one_that_is_dropped_while_steps_are_measured_counts_too(
    dropped: list[Any], blobs: str
) -> None:
    drop(blobs, 1)
    Path("study.toml").write_text(STUDY.format(task=blobs, epochs=100000))
    assert call("compare", "study.toml", "--out", "out").code == 130
    assert 0 < len(dropped) <= STEPS
    assert not Path("out").exists()


def test_one_that_was_not_dropped() -> None:
    with Interrupt() as interrupt:
        interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_job_that_ignores_it_goes_on_ignoring() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
            interrupt.check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_may_use_it() -> None:
    ended = []

    def work() -> None:
        with Interrupt() as interrupt:
            interrupt.check()
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
