"""Commands keep their hands off each other's files, and say when something failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blobs_example import STUDY, call, refused

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def run(blobs: str) -> Path:
    done = call("run", "one_shot", "--task", blobs, "--out", "a", "--set", "epochs=2",
                "--controls", "", "--no-speed")  # fmt: skip
    assert done.code == 0, done.err
    return Path("a")


def test_no_command_writes_over_a_runs_or_a_studys_files(run: Path, blobs: str) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    packed = run / "model.regrow"
    for words in (
        ("report", run, "--out", run / "record.json"),
        ("report", run, "--out", packed),
        ("export", packed, "--format", "torch", "-o", run / "record.json"),
        ("export", run, "--format", "torch", "-o", packed),
        ("pack", packed, "--task", blobs, "-o", run / "recipe.toml"),
    ):
        assert "choose another name" in refused(*words)
    Path("study.toml").write_text(STUDY.format(task=blobs, epochs=2))
    assert "a holds a run; choose another --out" in refused("compare", "study.toml", "--out", run)
    assert call("compare", "study.toml", "--out", "s").code == 0
    table = Path("s/study.toml").read_bytes()
    assert "choose another name" in refused("report", "s", "--out", "s/study.toml")
    assert "choose another name" in refused("report", "s", "--out", "s/records.csv")
    assert Path("s/study.toml").read_bytes() == table
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert call("report", run, "--out", "elsewhere.html").code == 0


def test_devices_and_pipes_are_left_alone(run: Path) -> None:
    os.mkfifo("pipe")
    told = refused("export", run, "--format", "torch", "-o", "pipe")
    assert "pipe is a device or a pipe; give the name of a file" in told
    assert Path("pipe").is_fifo()


def test_ranks_left_behind_by_something_else_do_not_lift_the_guard(
    run: Path, blobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    told = refused("run", "one_shot", "--task", blobs, "--out", run)
    assert "a holds a run already; go on with `regrow resume -- a`" in told


def test_a_study_whose_cells_fail_ends_with_one(blobs: str) -> None:
    module = blobs.partition(":")[0]
    text = Path(f"{module}.py").read_text()
    Path("broken.py").write_text(text.replace("nn.Linear(32, 3)", "nn.Linear(32, 2)"))
    Path("study.toml").write_text(STUDY.format(task="broken:task", epochs=2))
    done = call("compare", "study.toml", "--out", "s")
    assert done.code == 1
    assert "has scores of 2 classes; a label is 2" in done.out
    assert "regrow.core.errors" not in done.out
    told = refused("compare", "study.toml", "--out", "t", "--device", "gpu")
    assert "unknown device 'gpu'" in told
    assert not Path("t").exists()


def test_a_task_that_exits_is_told(blobs: str) -> None:
    Path("leaves.py").write_text("import sys\nsys.exit(0)\n")
    assert "raised SystemExit: 0 (leaves.py, line 2)" in refused(
        "run", "one_shot", "--task", "leaves:task", "--out", "b"
    )
    assert ":smile:" in refused("inspect", "no :smile: here")
    assert "unknown task ''" in refused("run", "one_shot", "--task", "", "--out", "b")
    date = ("run", "one_shot", "--task", blobs, "--out", "b", "--set", "criterion=1979-05-27")
    assert "a criterion is a name, a table with a 'name' or a part" in refused(*date)
