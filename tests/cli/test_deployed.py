"""What the terminal says of a run's deploy file and its speed: a loss as well as a gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from blobs_example import call, refused

from regrow.cli.progress import Progress, deployed


def speed(dense: float, rounded: float | None = None) -> dict[str, Any]:
    """Of a runtime that takes two milliseconds."""
    others = {"dense": ("onnxruntime", "fp32", dense), "rounded": ("some", "int8", rounded)}
    return {
        "median_ms": 2.0,
        **{
            kind: ms and {"engine": name, "dtype": d, "median_ms": ms, "times_faster": ms / 2}
            for kind, (name, d, ms) in others.items()
        },
    }


FOUND = {"file": "deploy.regrow", "file_bytes": 12345, "times_smaller": 23.83, "reason": None}
SIZE = "deploy file: runs/a/deploy.regrow, 12,345 bytes, 23.8x smaller than dense fp32"
UNKNOWN = {"file": None, "speed": None, "reason": "no runtime"}
START = "speed: 2 ms for one sample on one thread,"
FULL = ", the fastest dense engine in fp32 here"
NO_GAIN = "No gain in speed: the smaller a network and the fewer its zeros, the less they save."


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (
            FOUND | {"speed": speed(3.0)},
            [SIZE, START, "  1.50x faster than ONNX Runtime fp32 (3 ms)" + FULL],
        ),
        (
            FOUND | {"speed": speed(0.5, 5.0)},
            [
                SIZE,
                START,
                "  4.00x slower than ONNX Runtime fp32 (0.5 ms)" + FULL,
                "  2.50x faster than some int8 (5 ms), the fastest that rounds",
                NO_GAIN,
            ],
        ),
        (
            FOUND | {"speed": speed(2.0, 1.0)},
            [
                SIZE,
                START,
                "  1.00x faster than ONNX Runtime fp32 (2 ms)" + FULL,
                "  2.00x slower than some int8 (1 ms), the fastest that rounds",
            ],
        ),
        (FOUND | {"speed": None, "reason": "none"}, [SIZE, "speed: not measured: none"]),
        (UNKNOWN, ["speed: not measured: no runtime"]),
        (None, []),
    ],
)
def test_lines_below_the_table(found: dict[str, Any] | None, lines: list[str]) -> None:
    record = {} if found is None else {"deploy": found}
    assert deployed(record, Path("runs/a")) == lines


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("options", [(), ("--no-speed",)])
def test_the_command_asks_for_it_unless_told_not_to(
    options: tuple[str, ...], blobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def found(*_: object, measure: bool, **__: object) -> dict[str, Any] | None:
        asked.append(measure)
        return UNKNOWN | {"file_bytes": None, "dense_fp32_bytes": None} if measure else None

    monkeypatch.setattr("regrow.bench.run.deployment", found)
    command = ("one_shot", "--task", blobs, "--set", "sparsity=0.5")
    for done in (
        call("run", *command, "--out", "a", *options),
        call("resume", "a", *options),
    ):
        assert done.code == 0, done.err
        assert ("speed: not measured: no runtime" in done.out) == (not options)
    assert asked == [not options] * 2
    assert ("--no-speed" in Path("a/record.json").read_text()) == bool(options)
    page = Path("a/report.html").read_text()
    assert ("no runtime" in page) == (not options)


@pytest.mark.usefixtures("quick")
def test_the_deploy_file_of_a_run_is_not_written_over(blobs: str) -> None:
    assert call("run", "one_shot", "--task", blobs, "--out", "a").code == 0
    assert "a file of a itself" in refused(
        "export", "a", "--format", "torch", "-o", "a/deploy.regrow"
    )


def test_its_bar_has_no_epochs_and_goes_when_it_is_done() -> None:
    progress = Progress(quiet=True)
    with progress:
        progress({"kind": "arm", "arm": "dense", "epochs": 9, "epoch": 0})
        for words in ("packs", "times"):
            progress({"kind": "speed", "arm": "dense", "words": words})
        arm, speed = progress._bars.tasks
        assert (arm.total, speed.total, speed.visible) == (0, None, True)
        assert speed.fields["note"] == "times"
    assert [bar.visible for bar in progress._bars.tasks] == [True, False]
