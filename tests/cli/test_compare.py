"""`regrow compare`: a study from the command line, stopped and taken up, by several workers."""

from __future__ import annotations

import csv
import re
import time
import webbrowser
from pathlib import Path

import pytest
from blobs_example import call, interrupted, refused, start

from regrow.bench.comparison.evidence import COLUMNS

STUDY = """
name = "blobs"
[[grid]]
task = "{task}"
strategies = ["one_shot", "gradual"]
sparsities = [0.5, 0.8]
seeds = 2
epochs = 4
"""
ROWS = 2 * (2 * 5 + 3) + 2  # seeds x (sparsities x arms + twins), and two dense networks
CELLS = ROWS - 4 - 2  # the control is gradual, too, and so is its twin


@pytest.fixture
def study(blobs: str) -> Path:
    path = Path("study.toml")
    path.write_text(STUDY.format(task=blobs))
    return path


def table(out: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((out / "records.csv").read_text().splitlines()))
    for row in rows:
        del row["seconds"]
    return sorted(rows, key=lambda row: tuple(row.values()))


def test_a_study_ends_with_its_page_and_table(study: Path) -> None:
    told = call("compare", study, "--out", "a", "--dry-run")
    assert told.code == 0
    assert told.out.count("to do") == CELLS
    # Of each seed three are trained from scratch: two networks built small, and the dense one.
    assert told.out.count(f"from which {(CELLS - 2 * 3) // 2} start") == 2
    assert "epochs left, about " in told.out
    assert not Path("a").exists()
    done = call("compare", study, "--out", "a")
    assert done.code == 0, done.err
    assert f"{CELLS} of {CELLS} cells done" in done.out
    assert len(table(Path("a"))) == ROWS
    page = Path("a/report.html").read_text()
    assert "<h1>blobs</h1>" in page
    assert "not finished" not in page
    again = call("compare", study, "--out", "a")
    assert "0 epochs left" in again.out.splitlines()[0]
    Path("a/report.html").unlink()
    drawn = call("report", "a", "--tensorboard", "logs")
    assert drawn.code == 0, drawn.err
    assert f"curves of {ROWS} trainings" in drawn.out
    assert Path("a/report.html").read_text() == page
    assert len(list(Path("logs").rglob("events.out.*"))) == ROWS
    # In its study the table is the study; elsewhere it makes the same page without links.
    Path("a/report.html").unlink()
    assert call("report", "a/records.csv").code == 0
    assert Path("a/report.html").read_text() == page
    Path("mine.csv").write_bytes(Path("a/records.csv").read_bytes())
    alone = call("report", "mine.csv")
    assert alone.code == 0, alone.err
    body = re.sub(r'<a href="cells/[^"]*">(.*?)</a>', r"\1", page)
    body = body.replace("Each links to its record; epochs are", "Epochs are")
    body = re.sub("(<title>.*|<h1>)blobs", r"\1mine", body).partition("<footer>")[0]
    assert Path("mine.html").read_text().partition("<footer>")[0] == body


def test_stopped_and_taken_up_by_two_workers_it_is_the_same(study: Path, tmp_path: Path) -> None:
    assert call("compare", study, "--out", "whole").code == 0
    first = start("compare", study, "--out", "parts", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(Path("parts").glob("cells/*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    out, _ = interrupted(first)
    assert first.returncode == 130
    assert "goes on where it was" in out
    second = start("compare", study, "--out", "parts", "--workers", "2", cwd=tmp_path)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert f"{CELLS} of {CELLS} cells done" in out
    assert table(Path("parts")) == table(Path("whole"))


def test_the_page_is_shown_on_request(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("browser.sh").write_text('printf %s "$1" > "$(dirname "$0")/shown"')
    monkeypatch.setenv("BROWSER", f"sh {tmp_path / 'browser.sh'} %s")
    shown = start("compare", study, "--out", "a b", "--open", cwd=tmp_path)
    _, err = shown.communicate(timeout=120)
    assert shown.returncode == 0, err
    page = tmp_path / "a b" / "report.html"
    assert Path("shown").read_text() == page.as_uri()
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    told = call("report", "a b", "--open")
    assert told.code == 0, told.err
    assert "no browser was found; open a b/report.html yourself" in told.out
    assert "no browser" not in call("report", "a b").out


def test_data_that_is_not_there_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(STUDY.format(task="spoken_digits"))
    assert call("compare", "study.toml", "--out", "a", "--dry-run").code == 0
    told = refused("compare", "study.toml", "--out", "a", "--data-dir", "none")
    assert "no spoken digits in" in told
    assert not Path("a").exists()


def test_tables_that_tell_nothing_are_refused(blobs: str) -> None:
    Path("empty.csv").write_text(",".join(COLUMNS) + "\n")
    assert "holds no cell of a study" in refused("report", "empty.csv")
    Path("other.csv").write_text("a,b\n1,2\n")
    assert "no table of a study's records" in refused("report", "other.csv")
    assert "holds no curves" in refused("report", "empty.csv", "--tensorboard", "logs")


def test_what_is_refused(study: Path) -> None:
    for minutes in ("nan", "0", "-1"):
        told = refused("compare", study, "--out", "a", "--minutes", minutes)
        assert f"--minutes is a time from now on, as in 30; got {minutes}" in told
    assert "there is no study file" in refused("compare", "none.toml", "--out", "a")
    study.write_text(study.read_text().replace("gradual", "gradul"))
    assert "Did you mean 'gradual'" in refused("compare", study, "--out", "a")
    study.write_text("grid = 3")
    assert "has no grid" in refused("compare", study, "--out", "a")
    assert not Path("a").exists()
