"""The page's section on the deployed network against numbers computed here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import fake_run, report

from regrow.core.errors import RegrowError

HEADING = "Size and speed without PyTorch"
SLOW = "The smaller a network and the fewer its zeros, the less they save."


def deploy(
    own: float, others: dict[str, float], cpu: str = "Processor A", size: int = 400
) -> dict[str, Any]:
    """What a record tells; others by engine and dtype."""
    medians = {"regrow fp32": own, **others}
    engines = [
        dict(
            zip(("engine", "dtype"), name.split(), strict=True),
            median_ms=median,
            p10_ms=0.9 * median,
            p90_ms=1.2 * median,
        )
        for name, median in medians.items()
    ]
    return {
        "file_bytes": size,
        "dense_fp32_bytes": 8000,
        "speed": {"cpu": cpu, "isa": "avx2", "batch": 1, "threads": 1, "engines": engines},
        "reason": None,
    }


def test_sizes_and_speeds_are_means_over_the_seeds(tmp_path: Path) -> None:
    others = [
        {"torch fp32": 0.9, "torch bf16": 0.03, "onnxruntime fp32": 0.35},
        {"torch fp32": 0.7},
    ]
    runs = [
        fake_run(tmp_path, seed, deploy=deploy(0.1 + seed / 10, others[seed], size=400 + seed))
        for seed in range(2)
    ]
    page = report(runs, tmp_path / "report.html")
    assert page.text.count(HEADING) == 1
    assert (
        "At 97 % sparsity the deploy file of bidirectional takes 400 B, all parameters in fp32 "
        "8 kB: 20 times smaller." in page.text
    )
    own, best = np.mean([0.1, 0.2]), 0.35
    assert (
        f"Regrow's runtime takes 0.15 ms for one sample on one thread, {best / own:.2f} times as "
        "fast as the fastest dense engine in fp32, ONNX Runtime fp32 (0.35 ms) and 5.00 times "
        "slower than the fastest that rounds, PyTorch bf16 (0.03 ms)." in page.text
    )
    assert SLOW not in page.text
    table = next(table for table in page.tables if "Engine" in table[0])
    assert table[1] == ["0", "97 %", "regrow's runtime", "fp32", "0.1", "0.09", "0.12"]
    assert [row[0] for row in table[1:]] == ["0"] * 4 + ["1"] * 2
    # In the wide and the narrow drawing; the mean of both seeds.
    assert page.text.count("PyTorch fp32, dense") == 2
    assert page.text.count("0.8 ms") == 2


def test_a_loss_of_speed_is_said(tmp_path: Path) -> None:
    run = fake_run(tmp_path, deploy=deploy(0.5, {"torch fp32": 0.2}, size=8000))
    page = report([run], tmp_path / "report.html")
    assert (
        "2.50 times slower than the fastest dense engine in fp32, PyTorch fp32 (0.2 ms)."
        in page.text
    )
    assert SLOW in page.text
    assert "all parameters in fp32 8 kB." in page.text
    assert "times as fast" not in page.text


def test_levels_and_processors_are_not_mixed(tmp_path: Path) -> None:
    runs = [
        fake_run(tmp_path, 0, kept=186, deploy=deploy(0.4, {"torch fp32": 0.6})),
        fake_run(tmp_path, 0, kept=19, deploy=deploy(0.2, {"torch fp32": 0.6})),
        fake_run(tmp_path, 1, kept=19, deploy=deploy(0.1, {"torch fp32": 0.3}, "Processor B")),
    ]
    page = report(runs, tmp_path / "report.html")
    told = re.findall(r"takes ([\d.]+ ms) .*? on (Processor \w), ([\d.]+ times .*? as) ", page.text)
    assert told == [
        ("0.4 ms", "Processor A", "1.50 times as fast as"),
        ("0.2 ms", "Processor A", "3.00 times as fast as"),
        ("0.1 ms", "Processor B", "3.00 times as fast as"),
    ]
    assert len([table for table in page.tables if "Engine" in table[0]]) == 2
    assert len(page.ids) == len(set(page.ids))


def test_the_reason_stands_where_nothing_was_measured(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("file_bytes", "dense_fp32_bytes", "speed"))
    runs = [
        fake_run(tmp_path, 0, deploy={**nothing, "reason": "<b>no runtime</b>"}),
        fake_run(tmp_path, 1, deploy=deploy(0.1, {"torch fp32": 0.2})),
        fake_run(tmp_path, 2),
    ]
    page = report(runs, tmp_path / "report.html")
    assert "Not measured (seed 0): <b>no runtime</b>" in page.text
    assert "2.00 times as fast as" in page.text
    alone = report(runs[:1], tmp_path / "alone.html")
    assert HEADING in alone.text
    assert "times as fast" not in alone.text
    assert HEADING not in report(runs[2:], tmp_path / "old.html").text


def test_times_do_not_make_another_run(tmp_path: Path) -> None:
    runs = [
        fake_run(tmp_path / str(own), deploy=deploy(own, {"torch fp32": 0.2})) for own in (0.1, 0.3)
    ]
    page = report(runs, tmp_path / "report.html")
    assert "given more than once with equal records" in page.text


def test_a_record_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path, deploy=deploy(0.1, {"torch fp32": 0.2}))
    record = json.loads((run / "record.json").read_text())
    del record["deploy"]["speed"]["engines"][1]["p10_ms"]
    (run / "record.json").write_text(json.dumps(record))
    with pytest.raises(RegrowError, match="lacks the field 'p10_ms'"):
        report([run], tmp_path / "report.html")
