"""One thread, a user's task in the current directory, and no second process where not needed."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from blobs_example import MODULE

import regrow.bench.deliver
import regrow.bench.run

_COUNTER = itertools.count()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C as at a terminal, here and in processes started from here.

    A suite that a script starts in the background inherits that SIGINT is ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the deploy file and its times, which take seconds and are never the same."""
    monkeypatch.setattr(regrow.bench.run, "deployment", lambda *_, **__: None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, untimed: None) -> None:
    """Leave out besides the reading of packed files in a fresh process, which takes seconds."""
    monkeypatch.setattr(regrow.bench.deliver, "_verify", lambda packed, weights: None)


@pytest.fixture
def blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a task in a module of the current directory."""
    name = f"blobs_module_{next(_COUNTER)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield f"{name}:task"
    sys.modules.pop(name, None)
