"""A user's own task that trains in a tenth of a second, and the command line called in process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from regrow.cli import main

# With dropout, so that a resumed run must find PyTorch's own random stream where it was.
MODULE = '''
import torch
from torch import nn
from torch.utils.data import Dataset
from regrow.bench import Splits, Task, Training, gathered

class Blobs(Dataset):
    """Three clouds of points in twelve dimensions."""
    def __init__(self, seed, count):
        self.labels = torch.arange(count) % 3
        centres = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))
        self.points = centres[self.labels] + 0.9 * noise
    def __len__(self):
        return len(self.labels)
    def __getitem__(self, index):
        return self.points[index], int(self.labels[index])

def network(generator):
    return nn.Sequential(
        nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3)
    )

def jitter(points, generator):
    return points + 0.1 * torch.randn(points.shape, generator=generator)

def task():
    parts = [gathered(Blobs(seed, count)) for seed, count in ((1, 120), (2, 45), (3, 60))]
    training = Training(
        dense_epochs=2, fine_tune_epochs=4, batch_size=16, lr=0.1, fine_tune_lr=0.1,
        precision="fp32", threads=1,
    )
    return Task("blobs", lambda data_dir: Splits(*parts), {"mlp": network}, training, jitter)
'''
STUDY = """
name = "blobs"
[[grid]]
task = "{task}"
strategies = ["one_shot"]
sparsities = [0.5]
seeds = 1
epochs = {epochs}
"""
BIDIRECTIONAL = ("bidirectional_paper", "--set", "sparsity=0.7", "--set", "overshoot=0.9")
PATIENCE = (
    *("iterative", "--set", "sparsity=0.8", "--set", "epochs=12"),
    *("--set", "cuts=2", "--set", "patience=2"),
)
INITIAL = ("cops", "--set", "sparsity=0.8")
GROUPS = ("record.json", "history.json", "model.safetensors", "model.regrow", "recipe.toml")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def call(*arguments: object) -> Done:
    """The command in this process, errors of regrow's own included as exceptions."""
    out, err, code = io.StringIO(), io.StringIO(), None
    with (
        mock.patch.object(sys, "argv", ["regrow", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit:
            code = exit.code
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def refused(*arguments: object) -> str:
    """The message of a command on bad input: exit 2, one line, no traceback, nothing printed."""
    done = call(*arguments)
    assert done.code == 2, (done.code, done.out, done.err)
    assert not done.out
    assert "Traceback" not in done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    return lines[0]


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, one thread each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-m", "regrow", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process has printed in all once Ctrl-C ended it; where it hangs, its stacks."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        raise AssertionError(process.communicate()[1]) from None


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what may differ between equal runs: seconds, date and command."""
    environment = {k: v for k, v in record["environment"].items() if k != "date"}
    arms = {
        name: {k: v for k, v in arm.items() if k != "seconds"}
        for name, arm in record["arms"].items()
    }
    return {**record, "command": "", "environment": environment, "arms": arms}


def read(run: Path) -> dict[str, Any]:
    record = json.loads((run / "record.json").read_text())
    assert isinstance(record, dict)
    return record


def assert_same_run(run: Path, other: Path, context: object = "") -> None:
    """Two run directories tell and hold the same, to the bit."""
    assert timeless(read(run)) == timeless(read(other)), context
    for name in GROUPS[1:]:
        assert (run / name).read_bytes() == (other / name).read_bytes(), (name, context)
