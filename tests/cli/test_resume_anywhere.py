"""Killed at any moment and resumed: the same files and record as a run that was never stopped."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from blobs_example import BIDIRECTIONAL, INITIAL, PATIENCE, assert_same_run, call, start

from regrow.bench.state import StateFile

PROGRAMS = {"bidirectional": BIDIRECTIONAL, "patience": PATIENCE, "initial": INITIAL}


class Killed(BaseException):
    """Nothing between the write of a checkpoint and the end of the process runs."""


def run(program: tuple[str, ...], task: str, out: str) -> tuple[object, ...]:
    return ("run", *program, "--task", task, "--out", out, "--checkpoint-seconds", 0)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Counts checkpoint writes and stops the process after, or instead of, one of them."""
    control: dict[str, Any] = {"done": 0, "stop": None, "before": False, "arms": []}
    original = StateFile.write

    def write(self: StateFile, state: dict[str, Any]) -> None:
        control["done"] += 1
        stop = control["done"] == control["stop"]
        if stop and control["before"]:
            raise Killed
        original(self, state)
        control["arms"].append(self.path.name)
        if stop:
            raise Killed

    monkeypatch.setattr(StateFile, "write", write)
    return control


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("program", PROGRAMS)
def test_stopped_at_random_checkpoints(program: str, blobs: str, writes: dict[str, Any]) -> None:
    assert call(*run(PROGRAMS[program], blobs, "whole")).code == 0
    total = writes["done"]
    assert {"dense.done", "one_way.progress"} < set(writes["arms"])
    assert total > 60  # after every step: 8 in an epoch
    order = random.Random(7)
    for trial in range(6):
        out, moments = f"stopped-{trial}", []
        command: tuple[object, ...] = run(PROGRAMS[program], blobs, out)
        # Twice in a row and more often: each process gets some way further.
        left = total
        while left > 2 and len(moments) < 4:
            stop = order.randrange(1, left)
            writes.update(done=0, stop=stop, before=order.random() < 0.3)
            moments.append((stop, writes["before"]))
            with pytest.raises(Killed):
                call(*command)
            left -= stop
            command = ("resume", out, "--checkpoint-seconds", 0)
        writes.update(done=0, stop=None)
        assert call("resume", out).code == 0, moments
        assert_same_run(Path("whole"), Path(out), moments)
        assert not list(Path(out, "state").glob("*.progress"))


@pytest.mark.usefixtures("quick")
def test_at_most_the_work_since_the_last_checkpoint_is_lost(
    blobs: str, writes: dict[str, Any]
) -> None:
    assert call(*run(BIDIRECTIONAL, blobs, "whole")).code == 0
    total, arms = writes["done"], list(writes["arms"])
    writes.update(done=0, stop=40, arms=[])
    with pytest.raises(Killed):
        call(*run(BIDIRECTIONAL, blobs, "out"))
    writes.update(done=0, stop=None, arms=[])
    assert call("resume", "out", "--checkpoint-seconds", 0).code == 0
    assert writes["done"] == total - 40
    assert writes["arms"] == arms[40:]
    # A finished run has nothing left to do.
    writes.update(done=0)
    assert call("resume", "out").code == 0
    assert writes["done"] == 0
    assert_same_run(Path("whole"), Path("out"))


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("program", PROGRAMS)
def test_killed_processes(program: str, blobs: str, tmp_path: Path) -> None:
    longer = (*PROGRAMS[program], "--set", "training.dense_epochs=12")
    assert call("run", *longer, "--task", blobs, "--out", "whole").code == 0
    seed = {"bidirectional": 11, "patience": 12, "initial": 13}[program]
    order = random.Random(seed)
    command = run(longer, blobs, "out")
    story: list[Any] = [f"seed {seed}"]
    for waits_for in ("dense.progress", f"{longer[0]}.progress"):
        process = start(*command, cwd=tmp_path)
        appeared = tmp_path / "out" / "state" / waits_for
        deadline = time.monotonic() + 90
        while not appeared.exists() and process.poll() is None:
            assert time.monotonic() < deadline, story
            time.sleep(0.001)
        pause = order.uniform(0, 0.25)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        left = sorted(path.name for path in (tmp_path / "out" / "state").iterdir())
        story.append((waits_for, pause, process.returncode, left))
        assert process.returncode == -signal.SIGKILL, story
        assert not (tmp_path / "out" / "record.json").exists(), story
        command = ("resume", "out", "--checkpoint-seconds", 0)
    assert call("resume", "out").code == 0, story
    assert_same_run(tmp_path / "whole", tmp_path / "out", story)
    # Temporary files of killed writes are gone.
    assert not list((tmp_path / "out").rglob(".*.tmp")), story


@pytest.mark.usefixtures("quick")
def test_killed_before_anything_was_written(blobs: str) -> None:
    # The directory has been made, the recipe was being written.
    out = Path("out")
    out.mkdir()
    (out / ".0123456789abcdef.tmp").write_bytes(b"schema")
    assert call("run", *BIDIRECTIONAL, "--task", blobs, "--out", out).code == 0
    assert not (out / ".0123456789abcdef.tmp").exists()


@pytest.mark.usefixtures("quick")
def test_a_control_may_be_added_later(blobs: str, writes: dict[str, Any]) -> None:
    assert call("run", *BIDIRECTIONAL, "--task", blobs, "--out", "one").code == 0
    both = ("--controls", "one_way,no_regrowth")
    assert call("run", *BIDIRECTIONAL, "--task", blobs, "--out", "two", *both).code == 0
    recipe = Path("one/recipe.toml")
    recipe.write_text(recipe.read_text().replace('"one_way",', '"one_way",\n    "no_regrowth",'))
    writes.update(arms=[])
    assert call("resume", "one").code == 0
    assert writes["arms"] == ["no_regrowth.done"]
    assert_same_run(Path("one"), Path("two"))
