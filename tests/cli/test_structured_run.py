"""A run that cuts channels: what it leaves, and everything that is made of it, is small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from blobs_example import call, read, refused
from safetensors.torch import load_file
from torch import nn

import regrow
from regrow.bench.tasks import find_task
from regrow.export.packed import load

UNITS = ("bidirectional_units", "--set", "sparsity=0.5", "--set", "overshoot=0.8")
WIDTH = 16  # of 32 hidden units: 15 multiply-adds each, of 480


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3)
    )


@pytest.fixture
def run(blobs: str, quick: None) -> Path:
    controls = "one_way,gradual,random_regrowth,no_regrowth"
    done = call("run", *UNITS, "--task", blobs, "--controls", controls, "--out", "run")
    assert done.code == 0, done.err
    assert "MACs" in done.out
    return Path("run")


def test_the_run_leaves_the_smaller_network(run: Path, blobs: str) -> None:
    record = read(run)
    for name, arm in record["arms"].items():
        if name == "dense":
            assert "shrunk" not in arm
            continue
        width = 6 if name == "no_regrowth" else WIDTH
        assert arm["shrunk"] == {
            "of": "macs",
            "units": width,
            "units_dense": 32,
            "macs": 15 * width,
            "macs_dense": 480,
            "parameters": 18 * width + 3,
            "parameters_dense": 18 * 32 + 3,
        }
        assert arm["kept"] == 15 * width
        assert arm["epochs"]["total"] == 6
    events = json.loads((run / "history.json").read_text())["arms"]["bidirectional_units"]["events"]
    assert [(event["kind"], event["units"]) for event in events] == [
        ("prune", {"0": 6}),
        ("regrow", {"0": 16}),
    ]
    small = regrow.load_shrunk(network(), run / "shrunk").eval()
    assert sum(p.numel() for p in small.parameters()) == 18 * WIDTH + 3
    masked = load(network(), run / "model.regrow").eval()
    points = find_task(blobs).splits(None).test
    torch.testing.assert_close(small(points.images), masked(points.images))
    right = float((small(points.images).argmax(1) == points.labels).float().mean())
    assert right == pytest.approx(record["arms"]["bidirectional_units"]["test_accuracy"], abs=1e-6)


def test_exports_are_of_the_smaller_network(run: Path) -> None:
    small = regrow.load_shrunk(network(), run / "shrunk").eval()
    for to in ("safetensors", "torch"):
        assert call("export", run, "--format", to, "-o", f"a.{to}").code == 0
        found = load_file("a.safetensors") if to == "safetensors" else torch.load("a.torch")
        assert found.keys() == small.state_dict().keys()
        assert all(torch.equal(found[name], each) for name, each in small.state_dict().items())
    for arm, options in (("bidirectional_units", ()), ("no_regrowth", ("--arm", "no_regrowth"))):
        done = call("export", run, "--format", "onnx", "-o", f"{arm}.onnx", *options)
        assert done.code == 0, done.err
        shapes = sorted(tuple(t.dims) for t in onnx.load(f"{arm}.onnx").graph.initializer)
        width = 6 if options else WIDTH
        assert any(width in shape for shape in shapes)
        assert not any(32 in shape for shape in shapes)
    session = onnxruntime.InferenceSession("bidirectional_units.onnx")
    x = torch.randn(4, 12)
    (outputs,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(outputs, small(x).detach(), rtol=1e-4, atol=1e-5)


def test_pack_groups_and_a_second_call(run: Path) -> None:
    pytest.importorskip("regrow_runtime", reason="the runtime is not installed")
    done = call("pack", run, "-o", "small.regrow", "--json")
    assert done.code == 0, done.err
    assert done.json()["weights"] == 15 * WIDTH
    rows = call("inspect", run, "--groups", "--json").json()
    assert [row["units"] for row in rows["groups"] if row["reason"] is None] == [32]
    before = (run / "shrunk" / "edits.json").read_bytes()
    assert call("resume", run).code == 0
    assert (run / "shrunk" / "edits.json").read_bytes() == before
    assert (
        call("run", *UNITS, "--task", "digits", "--set", "sparsity=0.999", "--out", "b").code == 2
    )


def test_what_a_recipe_of_weights_says_to_units(blobs: str) -> None:
    told = refused("run", "bidirectional", "--set", "pattern=unit", "--task", blobs, "--out", "c")
    assert "'bidirectional_units'" in told
    told = refused(
        *("run", "one_shot", "--set", "pattern=unit", "--set", "sparsity=0.99"),
        *("--task", blobs, "--out", "c"),
    )
    assert "of the macs cannot be reached" in told
    assert not Path("c").exists()
