"""The deploy file of a run and its times: told once, of the very weights, and never in the way."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_task import configured, network, small, splits, trained
from torch import Tensor, nn

import regrow.bench.deliver
from regrow.bench.deployment import speed
from regrow.bench.tasks import Task
from regrow.bench.timing import Settings, Timing
from regrow.core.errors import RegrowError

ROW = {"batch": 1, "threads": 1, "p10_ms": 0.5, "p90_ms": 9.0, "calls": 10, "peak_mb": 1.0}


def row(engine: str, dtype: str, median: float, **more: Any) -> dict[str, Any]:
    return {**ROW, "engine": engine, "dtype": dtype, "median_ms": median, **more}


def timing(*rows: dict[str, Any]) -> Timing:
    skipped = [{"engine": "openvino", "dtype": None, "reason": "openvino is not installed"}]
    return Timing("A Processor", "avx2", 1e-6, list(rows), {"torch": "2.6"}, skipped)


ROWS = (
    row("regrow", "fp32", 2.0),
    row("onnxruntime", "fp32", 3.5),
    row("torch", "fp32", 1.0, error="outputs are 0.5 away"),
    row("torch", "bf16", 3.0),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regrow.bench.deliver, "_verify", lambda packed, weights: None)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What is asked of the measurement, which takes no time here."""
    asked: list[Settings] = []

    def measured(path: Path, settings: Settings, notify: Callable[[str], None]) -> Timing:
        notify("times")
        asked.append(settings)
        return timing(*ROWS)

    monkeypatch.setattr("regrow.bench.deployment.time_network", measured)
    return asked


def go(
    monkeypatch: pytest.MonkeyPatch, out: Path, task: Task | None = None, **options: Any
) -> dict[str, Any]:
    """The run's record, which is also what lies in its directory."""
    chosen = task or small()
    config = configured(monkeypatch, chosen, "one_shot", ["sparsity=0.8"], controls=())
    record = trained(config, chosen, out, **options)
    assert json.loads((out / "record.json").read_text()) == record
    return record


def test_the_record_tells_of_the_very_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: list[Settings]
) -> None:
    runtime = pytest.importorskip("regrow_runtime", reason="the runtime is not installed")
    out, told = tmp_path / "run", []
    found = go(
        monkeypatch,
        out,
        speed=True,
        notify=lambda event: told.append(event) if event["kind"] == "speed" else None,
    )["deploy"]
    (asked,) = timed
    assert (asked.batches, asked.threads) == ((1,), (1,))
    assert {event["arm"] for event in told} == {"one_shot"}
    assert "times" in [event["words"] for event in told]
    file = out / found["file"]
    parameters = sum(each.numel() for each in network(torch.Generator()).parameters())
    assert found["file_bytes"] == file.stat().st_size
    assert found["dense_fp32_bytes"] == 4 * parameters
    assert found["times_smaller"] == 4 * parameters / file.stat().st_size
    assert found["reason"] is None
    # The runtime computes what the delivered weights compute.
    model = network(torch.Generator()).eval()
    model.load_state_dict(load_file(out / "model.safetensors"))
    images = splits().validation.images[:32]
    with torch.no_grad():
        expected = model(images).numpy()
    off = np.abs(runtime.load(file)(images.numpy()) - expected).max()
    assert off == pytest.approx(found["max_abs_diff"], abs=1e-6)
    assert off < 1e-5
    # Wrong outputs are no competitor; rounding is another matter than fp32.
    times = found["speed"]
    assert (times["threads"], times["batch"], times["median_ms"]) == (1, 1, 2.0)
    dense = {"engine": "onnxruntime", "dtype": "fp32", "median_ms": 3.5, "times_faster": 1.75}
    rounded = {"engine": "torch", "dtype": "bf16", "median_ms": 3.0, "times_faster": 1.5}
    assert (times["dense"], times["rounded"]) == (dense, rounded)
    assert [each["engine"] for each in times["engines"]] == ["regrow", "torch", "onnxruntime"]
    assert (times["cpu"], times["isa"]) == ("A Processor", "avx2")


def test_a_finished_measurement_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: list[Settings]
) -> None:
    pytest.importorskip("regrow_runtime", reason="the runtime is not installed")
    out = tmp_path / "run"
    assert "deploy" not in go(monkeypatch, out)
    assert not (out / "deploy.regrow").exists()
    first = go(monkeypatch, out, speed=True)
    assert len(timed) == 1
    assert go(monkeypatch, out, speed=True) == first
    assert go(monkeypatch, out)["deploy"] == first["deploy"]
    assert len(timed) == 1
    # Another file under its name, a damaged note, no file: nothing of it is believed.
    (out / "deploy.regrow").write_bytes(b"mine")
    assert go(monkeypatch, out, speed=True)["deploy"] == first["deploy"]
    (out / "state" / "deploy.done").write_bytes(b"damaged")
    go(monkeypatch, out, speed=True)
    assert len(timed) == 3
    # Other weights: what was measured of the old ones is gone.
    for file in (out / "state").glob("one_shot.*"):
        file.unlink()
    config = configured(monkeypatch, small(), "one_shot", ["sparsity=0.5"], controls=())
    assert "deploy" not in trained(config, small(), out)
    assert not (out / "deploy.regrow").exists()
    assert trained(config, small(), out, speed=True)["deploy"]["speed"] is not None
    assert len(timed) == 4
    regrow.bench.deliver.clear(out)
    assert not out.exists() or not any(out.iterdir())


def test_without_the_runtime_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("regrow_runtime"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr("regrow.export.runtime.importlib.import_module", without)
    record = go(monkeypatch, tmp_path / "run", speed=True)
    found = record["deploy"]
    assert "regrow[runtime]" in found.pop("reason")
    assert set(found.values()) == {None}
    assert record["arms"]["one_shot"]["test_accuracy"] > 0
    assert not (tmp_path / "run" / "deploy.regrow").exists()


class Sorts(nn.Module):
    """With an operator that no runtime of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, points: Tensor) -> Tensor:
        return self.layer(points).sort(dim=1).values


def test_a_network_that_cannot_be_captured_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("regrow_runtime", reason="the runtime is not installed")
    task = small(models={"sorts": lambda generator: Sorts()})
    found = go(monkeypatch, tmp_path / "run", task, speed=True)["deploy"]
    assert "sort" in found["reason"]
    assert (found["file"], found["speed"]) == (None, None)


@pytest.mark.parametrize("error", [OSError("no processes left"), RegrowError("no such engine")])
def test_a_failed_measurement_leaves_the_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: list[Settings]
) -> None:
    pytest.importorskip("regrow_runtime", reason="the runtime is not installed")
    with monkeypatch.context() as patch:

        def fails(*_: object) -> None:
            raise error

        patch.setattr("regrow.bench.deployment.time_network", fails)
        found = go(monkeypatch, tmp_path / "run", speed=True)["deploy"]
    assert str(error) in found["reason"]
    assert found["speed"] is None
    assert found["file_bytes"] == (tmp_path / "run" / "deploy.regrow").stat().st_size
    # It is tried again.
    assert go(monkeypatch, tmp_path / "run", speed=True)["deploy"]["reason"] is None
    assert len(timed) == 1


def test_a_comparison_needs_both_sides() -> None:
    slower = speed(timing(row("regrow", "fp32", 4.0), row("torch", "fp32", 1.0)))
    assert slower["dense"]["times_faster"] == 0.25
    assert slower["rounded"] is None
    assert slower["engines"][0]["engine"] == "torch"
    with pytest.raises(
        RegrowError, match=r"runtime could not be timed .*openvino is not installed"
    ):
        speed(timing(row("torch", "fp32", 1.0)))
    wrong = row("regrow", "fp32", 1.0, error="outputs are 0.5 away")
    with pytest.raises(RegrowError, match=r"runtime could not be timed \(regrow: outputs are 0\.5"):
        speed(timing(wrong, row("torch", "fp32", 1.0)))
    with pytest.raises(RegrowError, match="no dense engine could be timed"):
        speed(timing(row("regrow", "fp32", 1.0), row("torch", "bf16", 1.0)))
