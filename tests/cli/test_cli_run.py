"""What a run leaves: the record, the files, and the same again from its recipe.toml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from blobs_example import (
    BIDIRECTIONAL,
    PATIENCE,
    assert_same_run,
    call,
    interrupted,
    read,
    start,
    timeless,
)
from safetensors.torch import load_file

from regrow.bench.timing import Settings
from regrow.export.packed import unpack

ARM = {
    "sparsity",
    "density_denominator",
    "kept",
    "total",
    "test_accuracy",
    "validation_accuracy",
    "epochs",
    "steps",
    "seconds",
    "file_bytes",
    "dense_bytes",
}


def test_the_run_directory_of_the_first_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "regrow.bench.deployment._SETTINGS",
        Settings(batches=(1,), against=("torch",), seconds=0.01),
    )
    monkeypatch.setattr("regrow.bench.timing.engines.native_bf16", lambda: False)
    installed = find_spec("regrow_runtime") is not None
    out = tmp_path / "first"
    short = ("--set", "training.dense_epochs=2", "--set", "epochs=3")
    done = call("run", "bidirectional", "--task", "digits", "--seed", 3, "--out", out, *short)
    assert done.code == 0, done.err
    assert "bidirectional" in done.out
    assert str(out / "report.html") in done.out
    assert "2/2 epochs" in done.err
    record = read(out)
    top = {"schema", "task", "model", "recipe", "seed", "command", "environment", "arms"}
    top |= {"parameters", "training", "deploy"}
    assert set(record) == top
    assert (record["schema"], record["task"], record["model"]) == (1, "digits", "digits_cnn")
    assert (record["recipe"], record["seed"]) == ("bidirectional", 3)
    assert list(record["arms"]) == ["dense", "bidirectional", "one_way"]
    for name, arm in record["arms"].items():
        assert set(arm) >= ARM
        assert arm["total"] == 72_608
        kept = 72_608 if name == "dense" else round(0.03 * 72_608)
        assert arm["kept"] == kept
        assert arm["sparsity"] == 1 - kept / 72_608
        for part, count in (("test", 719), ("validation", 179)):
            correct = arm[f"{part}_accuracy"] * count
            assert abs(correct - round(correct)) < 1e-9
            assert 0 < arm[f"{part}_accuracy"] <= 1
        assert arm["epochs"]["total"] == (2 if name == "dense" else 5)
        assert arm["steps"]["total"] == arm["epochs"]["total"] * 29  # 898 images, 32 a step
        assert arm["seconds"] > 0
    files = {path.name for path in out.iterdir()}
    assert files == {
        *("recipe.toml", "record.json", "history.json", "report.html"),
        *("model.safetensors", "model.regrow", "state"),
        *(["deploy.regrow"] if installed else []),
    }
    check_deployed(record["deploy"], out, done.out, installed)
    assert not list((out / "state").glob("*.progress"))
    arm = record["arms"]["bidirectional"]
    assert arm["file_bytes"] == (out / "model.regrow").stat().st_size < arm["dense_bytes"] / 5
    state = load_file(out / "model.safetensors")
    assert all(name.split(".")[0] in NAMES for name in state)
    packed = unpack(out / "model.regrow")
    assert all(torch.equal(packed.state[name], tensor) for name, tensor in state.items())
    assert sum(int(mask.sum()) for mask in packed.keep.values()) == arm["kept"]
    assert not any(state[name][~mask].any() for name, mask in packed.keep.items())


def check_deployed(found: dict[str, Any], out: Path, words: str, installed: bool) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Size and speed without PyTorch" in page
    if not installed:
        assert "regrow[runtime]" in found["reason"]
        assert "speed: not measured: " in words
        return
    assert found["reason"] is None
    assert found["file_bytes"] == (out / "deploy.regrow").stat().st_size
    assert f"{out / 'deploy.regrow'}, {found['file_bytes']:,} bytes" in words
    speed = found["speed"]
    dense = speed["dense"]
    assert (dense["engine"], speed["batch"], speed["threads"]) == ("torch", 1, 1)
    assert dense["times_faster"] == dense["median_ms"] / speed["median_ms"] > 0
    assert f"than PyTorch fp32 ({dense['median_ms']:.3g} ms)" in words
    assert f"PyTorch fp32 ({dense['median_ms']:.3g}\N{NO-BREAK SPACE}ms)" in page


NAMES = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "hidden", "classifier"}


@pytest.mark.usefixtures("quick")
def test_recipe_toml_run_again_gives_an_equal_record(blobs: str) -> None:
    extra = ("--controls", "one_way,gradual,random_regrowth,no_regrowth", "--seed", 5)
    done = call("run", *BIDIRECTIONAL, "--task", blobs, "--out", "a", *extra, "--json")
    assert done.code == 0
    assert done.json() == read(Path("a"))
    assert "━" not in done.err
    assert call("run", "a/recipe.toml", "--out", "b").code == 0
    assert_same_run(Path("a"), Path("b"))
    record = read(Path("a"))
    arms = record["arms"]
    assert list(arms) == [
        *("dense", "bidirectional_paper", "one_way", "gradual"),
        *("random_regrowth", "no_regrowth"),
    ]
    sparsities = {name: round(arm["sparsity"], 2) for name, arm in arms.items()}
    assert sparsities.pop("dense") == 0
    assert sparsities.pop("no_regrowth") == 0.9
    assert set(sparsities.values()) == {0.7}
    assert arms["random_regrowth"]["test_accuracy"] > 0.4
    # The recorded command is one that can be typed again.
    assert record["command"] == "regrow run a/recipe.toml --out a-again"
    assert call(*record["command"].split()[1:]).code == 0
    assert_same_run(Path("a"), Path("b"))


@pytest.mark.usefixtures("quick")
def test_weights_leave_and_return_all_along(blobs: str) -> None:
    short = ("--set", "sparsity=0.7", "--set", "epochs=8", "--set", "exchange=0.4")
    controls = ("one_way", "gradual", "random_regrowth", "no_regrowth")
    command = ("run", "bidirectional", "--task", blobs, *short, "--controls", ",".join(controls))
    done = call(*command, "--out", "a", "--json")
    assert done.code == 0, done.err
    text = Path("a/recipe.toml").read_text()
    assert 'recipe = "bidirectional"' in text
    assert 'criterion = "saliency"' in text
    assert "overshoot" not in text  # TOML has no None
    record = done.json()
    assert record["parameters"]["criterion"] == "saliency"
    pruned = ("bidirectional", *controls)
    assert list(record["arms"]) == ["dense", *pruned]
    assert {record["arms"][name]["kept"] for name in pruned} == {round(0.3 * 480)}
    arms = json.loads(Path("a/history.json").read_text())["arms"]
    returned = {name: sum(event["regrown"] for event in arms[name]["events"]) for name in pruned}
    assert returned.pop("bidirectional") > 0
    assert returned.pop("random_regrowth") > 0
    assert set(returned.values()) == {0}
    assert call("run", "a/recipe.toml", "--out", "b").code == 0
    assert_same_run(Path("a"), Path("b"))


@pytest.mark.usefixtures("quick")
def test_a_criterion_of_ones_own_replaces_the_recipes(blobs: str) -> None:
    done = call("run", "bidirectional", "--task", blobs, "--out", "a", "--set", "criterion=lamp")
    assert done.code == 0, done.err
    assert 'criterion = "lamp"' in Path("a/recipe.toml").read_text()
    assert read(Path("a"))["parameters"]["criterion"] == "lamp"


@pytest.mark.usefixtures("quick")
def test_another_seed_is_another_run(blobs: str) -> None:
    for seed in (0, 1):
        command = ("run", *BIDIRECTIONAL, "--task", blobs, "--seed", seed, "--out", f"s{seed}")
        assert call(*command).code == 0
    records = [read(Path(f"s{seed}")) for seed in (0, 1)]
    assert timeless(records[0])["arms"] != timeless(records[1])["arms"]
    first, second = (Path(f"s{seed}/model.safetensors").read_bytes() for seed in (0, 1))
    assert first != second


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "recipe",
    [
        ("one_shot",),
        ("iterative", "--set", "cuts=2"),
        ("hybrid", "--set", "cuts=2"),
        ("gradual",),
        ("manual", "--set", "sparsities=[0.8,0.9,0.7]", "--set", "at=[0,1,2]"),
        PATIENCE,
    ],
    ids=lambda recipe: recipe[0] + ("-patience" if "patience=2" in recipe else ""),
)
def test_every_recipe_runs_beside_its_control(recipe: tuple[str, ...], blobs: str) -> None:
    done = call("run", *recipe, "--task", blobs, "--out", "run", "--json")
    assert done.code == 0, done.err
    arms = done.json()["arms"]
    if recipe[0] == "one_shot":  # The control would be the same program.
        assert list(arms) == ["dense", "one_shot"]
        return
    main, control = arms[recipe[0]], arms["one_way"]
    assert main["kept"] == control["kept"]
    assert main["epochs"] == control["epochs"]
    assert main["steps"] == control["steps"]
    if recipe != PATIENCE:
        assert main["epochs"]["fine_tune"] == 4


@pytest.mark.usefixtures("quick")
def test_overwrite_removes_a_run_and_nothing_else(blobs: str) -> None:
    command = ("run", *BIDIRECTIONAL, "--task", blobs, "--out", "run")
    assert call(*command).code == 0
    notes = Path("run/notes.txt")
    notes.write_text("mine")
    before = read(Path("run"))
    # What is wrong with the new run must not cost the old one.
    assert call(*command, "--overwrite", "--set", "floor=5000").code == 2
    assert read(Path("run")) == before
    assert call(*command, "--overwrite", "--seed", 1).code == 0
    assert read(Path("run"))["seed"] == 1
    assert notes.read_text() == "mine"


def test_interrupted_by_the_keyboard(blobs: str, tmp_path: Path) -> None:
    epochs = ("--set", "training.dense_epochs=100000")
    common = ("run", *BIDIRECTIONAL, *epochs, "--task", blobs, "--checkpoint-seconds", 0)
    process = start(*common, "--out", "run", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run/state/dense.progress").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _, err = interrupted(process)
    assert process.returncode == 130
    # Before it Python may tell of a destructor that dropped the interrupt.
    assert err.splitlines()[-1].startswith("error: stopped; go on with `regrow resume run`"), err
    assert (tmp_path / "run/state/dense.progress").exists()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_ranks_give_one_record(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "regrow", "run", "bidirectional", "--json"]
    command += [
        "--task",
        "digits",
        "--out",
        "run",
        "--devices",
        "2",
        "--device",
        "cpu",
        "--no-speed",
    ]
    command += ["--set", "training.dense_epochs=1", "--set", "epochs=3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(done.stdout)  # printed once
    assert record == read(tmp_path / "run")
    arms = record["arms"]
    assert {arm["kept"] for name, arm in arms.items() if name != "dense"} == {2_178}
    # 898 images make 28 steps of 32; the last 2 are too few for two ranks with batch norm.
    assert [arm["steps"]["total"] for arm in arms.values()] == [28, 112, 112]
