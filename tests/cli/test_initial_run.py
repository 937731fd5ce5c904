"""Runs and studies of programs that start from initial weights: budgets, records, pages."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from blobs_example import assert_same_run, call, read, refused

from regrow.bench.toml import parse

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("recipe", ["snip", "grasp", "synflow", "cops"])
def test_it_trains_for_the_whole_budget_at_the_first_learning_rate(recipe: str, blobs: str) -> None:
    more = ("--set", "sparsity=0.8", "--set", "training.fine_tune_lr=0.03")
    done = call(
        "run", recipe, "--task", blobs, "--out", "a", "--controls", "one_way,gradual", *more
    )
    assert done.code == 0, done.err
    record = read(Path("a"))
    arms = record["arms"]
    assert record["parameters"]["epochs"] == 2 + 4
    assert arms["dense"]["epochs"] == {"dense": 2, "total": 2}
    assert arms[recipe]["epochs"] == {"sparse": 6, "total": 6}
    for control in ("one_way", "gradual"):
        assert arms[control]["epochs"] == {"dense": 2, "fine_tune": 4, "total": 6}
    assert len({arm["steps"]["total"] for name, arm in arms.items() if name != "dense"}) == 1
    history = json.loads(Path("a/history.json").read_text())["arms"]
    assert [row["sparsity"] for row in history[recipe]["epochs"]] == [arms[recipe]["sparsity"]] * 6
    assert 0.09 < max(row["lr"] for row in history[recipe]["epochs"]) <= 0.1
    assert max(row["lr"] for row in history["one_way"]["epochs"]) <= 0.03
    (event,) = history[recipe]["events"]
    assert (event["epoch"], event["step"], event["kept"]) == (0, 0, arms[recipe]["kept"])
    assert ("shares" in event) == (recipe == "cops")
    page = Path("a/report.html").read_text()
    assert f"Each other than {recipe} starts from the same dense network" in page
    again = call("run", "a/recipe.toml", "--out", "b")
    assert again.code == 0, again.err
    assert_same_run(Path("a"), Path("b"))
    assert parse(Path("b/recipe.toml").read_text())["parameters"]["epochs"] == 6


def test_controls_cut_the_trained_network_by_the_usual_criterion(blobs: str) -> None:
    short = ("--set", "sparsity=0.8", "--task", blobs)
    assert call("run", "grasp", *short, "--out", "a").code == 0
    assert call("run", "one_shot", *short, "--out", "b", "--controls", "").code == 0
    ours, theirs = read(Path("a"))["arms"]["one_way"], read(Path("b"))["arms"]["one_shot"]
    for key in ("kept", "test_accuracy", "validation_accuracy", "file_bytes", "epochs"):
        assert ours[key] == theirs[key]


def test_too_few_epochs_for_controls_are_refused_at_once(blobs: str) -> None:
    told = refused("run", "snip", "--task", blobs, "--out", "a", "--set", "epochs=2")
    assert "leaves its controls none after training.dense_epochs=2" in told
    assert not Path("a").exists()
    alone = ("--set", "epochs=2", "--controls", "")
    assert call("run", "snip", "--task", blobs, "--out", "a", *alone).code == 0


def test_a_study_gives_every_arm_the_same_budget(blobs: str) -> None:
    Path("study.toml").write_text(
        f'[[grid]]\ntask = "{blobs}"\nstrategies = ["one_shot", "snip", "synflow", "cops"]\n'
        "sparsities = [0.8]\nseeds = 1\nepochs = 4\n"
    )
    done = call("compare", "study.toml", "--out", "a")
    assert done.code == 0, done.err
    rows = {r["arm"]: r for r in csv.DictReader(Path("a/records.csv").read_text().splitlines())}
    assert {"dense", "small dense", "one_shot", "snip", "synflow", "cops"} <= set(rows)
    for arm, row in rows.items():
        spent = int(row["epochs"]) + int(row["dense_epochs"])
        assert spent == (2 if arm == "dense" else 6), arm
    assert (rows["snip"]["dense_epochs"], rows["one_shot"]["dense_epochs"]) == ("0", "2")
    again = call("compare", "study.toml", "--out", "a")
    assert "0 epochs left" in again.out.splitlines()[0]
