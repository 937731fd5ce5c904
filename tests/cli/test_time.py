"""`regrow time`: what machines and people read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from blobs_example import call
from torch import nn

from regrow.bench.timing import Settings, Timing
from regrow.cli import time as command
from regrow.core.errors import RegrowError

pytest.importorskip("regrow_runtime", reason="the runtime is not installed")

ROW = {"p10_ms": 0.9, "p90_ms": 1.4, "calls": 10, "max_abs_diff": 70.0, "peak_mb": 3.0}
ROW |= {"batch": 16, "threads": 2}


def row(engine: str, dtype: str, median: float, diff: float | None, **more: Any) -> dict[str, Any]:
    told = {"engine": engine, "dtype": dtype, "median_ms": median, "relative_diff": diff}
    return {**ROW, **told, **more}


TIMING = Timing(
    "A Processor",
    "avx2",
    1e-6,
    [
        row("regrow", "fp32", 1.0, 1e-6),
        row("onnxruntime", "fp32", 4.5, 2e-6),
        row("openvino", "int8", 0.5, 3e-3),
        row("torch", "fp32", 7.0, 0.5, error="outputs are 0.5 away"),
    ],
    {"torch": "2.6"},
    [{"engine": "deepsparse", "dtype": None, "threads": None, "batch": None, "reason": "absent"}],
    1.25,
    [
        {"threads": 2, "batch": 16, "module": "layer.3", "microseconds": 12.34}
        | {"gmacs": 5.67, "peak_share": 0.423}
    ],
)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    from regrow.export.deploy import pack

    torch.manual_seed(0)
    pack(nn.Sequential(nn.Linear(5, 3), nn.ReLU()), tmp_path / "m.regrow", torch.randn(2, 5))
    return tmp_path / "m.regrow"


def test_machines_read_rows(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.time_command(
        packed, batch="1,3", threads="1", against="torch", seconds=0.01, as_json=True
    )
    out, err = capsys.readouterr()
    assert err == ""
    told = json.loads(out)
    assert set(told) == {"cpu", "isa", "max_abs_diff", "rows", "versions", "skipped", "load"}
    keys = {"engine", "dtype", "batch", "threads", "median_ms", "p10_ms", "p90_ms"}
    assert all(keys <= set(each) for each in told["rows"])
    own = [each["batch"] for each in told["rows"] if each["engine"] == "regrow"]
    assert own == [1, 3]
    assert {each["engine"] for each in told["rows"]} == {"regrow", "torch"}
    assert 0 <= told["max_abs_diff"] < 1e-5


def test_people_read_ratios(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked: list[Settings] = []

    def measured(path: Path, settings: Settings, notify: Any) -> Timing:
        asked.append(settings)
        return TIMING

    monkeypatch.setattr("regrow.bench.timing.time_network", measured)
    monkeypatch.setenv("COLUMNS", "120")
    command.time_command(
        Path("m"), batch="16,16,2", threads="2", against="torch, deepsparse", layers=True
    )
    assert asked == [Settings((16, 2), (2,), ("torch", "deepsparse"), 1.0, True)]
    out = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if "│" in line}
    assert "4.50x faster" in lines["onnxruntime"]
    assert "2.00x slower" in lines["openvino"]
    assert "3.0e-03" in lines["openvino"]
    assert "wrong" in lines["torch"]
    assert "faster" not in lines["torch"] + lines["regrow"]
    assert [each.strip() for each in lines["layer.3"].split("│")[2:-1]] == ["12.3", "5.7", "42%"]
    for words in (
        "A Processor; regrow runs on avx2",
        "batch 16, 2 threads",
        "torch fp32, batch 16, 2 threads: outputs are 0.5 away",
        "left out: deepsparse: absent",
        "torch 2.6",
        "load 1.2 in the minute before",
        "int8: quantised by ONNX Runtime",
    ):
        assert words in out


@pytest.mark.parametrize("words", ["", "0", "1,x", "1,,2", "-3", "1.5"])
def test_numbers_are_refused(words: str, packed: Path) -> None:
    for option in ("batch", "threads"):
        with pytest.raises(RegrowError, match=f"--{option}"):
            command.time_command(packed, **{"batch": "1", "threads": "1", option: words})


def test_refused_before_anything_is_measured(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: Any) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr("regrow.bench.timing.process.subprocess.Popen", never)
    for given, words in (
        ({"against": "tensorflow"}, "tensorflow"),
        ({"threads": "1000000"}, "may use"),
        ({"seconds": -1.0}, "seconds"),
    ):
        with pytest.raises(RegrowError, match=words):
            command.time_command(packed, **{"batch": "1", "threads": "1", **given})
    with pytest.raises(RegrowError, match="there is no"):
        command.time_command(packed.parent / "nothing", batch="1", threads="1")


def test_the_command_line_knows_it() -> None:
    app = typer.Typer()
    app.command("time")(command.time_command)
    info = typer.main.get_command(app)
    assert {"--batch", "--threads", "--against", "--seconds", "--layers", "--json"} <= {
        option for each in info.params for option in each.opts
    }
    assert call("--help").code == 0
