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
    if len(calls) > 1:  # The first is a trial, before anything is trained.
        Interrupted()
"""


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Python would tell of dropped exceptions."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    return told


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_dropped_interrupt_counts_after_the_epoch(
    command: str, dropped: list[Any], blobs: str
) -> None:
    module = Path(blobs.removesuffix(":task") + ".py")
    module.write_text(MODULE.replace(JITTER, DROPS))
    assert module.read_text() != MODULE
    if command == "run":
        epochs = ("--set", "training.dense_epochs=100000")
        done = call("run", "one_shot", *epochs, "--task", blobs, "--out", "out")
        assert "regrow resume out" in done.err
    else:
        Path("study.toml").write_text(STUDY.format(task=blobs, epochs=100000))
        done = call("compare", "study.toml", "--out", "out")
        assert "goes on where it was" in done.out
    assert done.code == 130
    steps = -(-120 // 16)
    assert [each.exc_type for each in dropped] == [KeyboardInterrupt] * steps  # one epoch


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
