"""`regrow pack`: a run and a file of weights as a small file that runs without PyTorch."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
from blobs_example import BIDIRECTIONAL, call, read, refused

regrow_runtime = pytest.importorskip("regrow_runtime", reason="the runtime is not installed")

KEYS = {
    "bytes",
    "dense_fp32_bytes",
    "zstd_bytes",
    "nonzeros",
    "weights",
    "position_bits",
    "position_bits_bound",
}


@pytest.fixture
def run(blobs: str, quick: None) -> Path:
    assert call("run", *BIDIRECTIONAL, "--task", blobs, "--out", "run").code == 0
    return Path("run")


def test_a_run_is_packed_and_classifies(run: Path) -> None:
    record = read(run)["arms"]["bidirectional_paper"]
    for values in ("fp32", "int8"):
        found = call("pack", run, "--values", values, "-o", f"{values}.regrow", "--json")
        assert (found.code, found.err) == (0, "")
        told = found.json()
        assert set(told) >= KEYS
        assert told["bytes"] == Path(f"{values}.regrow").stat().st_size
        assert told["weights"] == record["total"]
        assert told["nonzeros"] <= record["kept"]
        assert told["zstd_bytes"] > 0
        assert told["test_accuracy_before"] == record["test_accuracy"]
        assert abs(told["test_accuracy"] - record["test_accuracy"]) < 0.05
    network = regrow_runtime.load("fp32.regrow")
    assert network.input_shapes.popitem()[1] == (12,)


def test_what_people_read(run: Path) -> None:
    found = call("pack", run, "-o", "m.regrow", "--arm", "one_way")
    assert found.code == 0
    for words in ("x smaller than dense fp32 (fp32 values)", "zstd -19", "test accuracy", "ratio"):
        assert words in found.out


def test_a_file_of_weights_needs_its_task(run: Path, blobs: str) -> None:
    file = run / "model.regrow"
    assert "--task" in refused("pack", file, "-o", "m.regrow")
    found = call("pack", file, "--task", blobs, "--model", "mlp", "-o", "m.regrow", "--json")
    assert found.code == 0
    assert Path("m.regrow").exists()
    assert "nmlp" in refused("pack", file, "--task", blobs, "--model", "nmlp", "-o", "n.regrow")
    assert "--arm" in refused("pack", file, "--task", blobs, "--arm", "dense", "-o", "n.regrow")
    assert "knows its task" in refused("pack", run, "--task", blobs, "-o", "n.regrow")


def test_refusals(run: Path) -> None:
    assert "there is no nothing" in refused("pack", "nothing", "-o", "m.regrow")
    assert "int4" in refused("pack", run, "--values", "int4", "-o", "m.regrow")
    assert "the file that is read" in refused("pack", run, "-o", "run/model.regrow")
    assert not Path("m.regrow").exists()


def test_without_the_runtime_it_says_what_is_missing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("regrow_runtime"):
            raise ImportError("No module named 'regrow_runtime'")
        return real(name, *rest)

    monkeypatch.setattr("regrow.export.runtime.importlib.import_module", without)
    words = refused("pack", run, "-o", "m.regrow")
    assert "regrow[runtime]" in words
    assert "compiler" in words
