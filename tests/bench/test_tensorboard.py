"""Curves for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small_task import small

from regrow.bench.comparison.grid import Study
from regrow.bench.comparison.study_file import study_of
from regrow.bench.store import Store
from regrow.bench.study import run_cells
from regrow.bench.tensorboard import Curves, study_curves, write_curves
from regrow.core.errors import RegrowError

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    assert len(list(folder.glob("events.out.*"))) == 1
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr("regrow.bench.comparison.grid.find_task", lambda name: small())
    grid = {"task": "small", "strategies": ["bidirectional"], "sparsities": [0.8], "seeds": 1}
    return study_of({"grid": [{**grid, "epochs": 4}]}, "a study", "study.toml")


def test_what_is_drawn_is_what_the_record_says(study: Study, tmp_path: Path) -> None:
    cells, store = study.cells(), Store(tmp_path / "study")
    run_cells(list(cells.values()), store)
    for _ in range(2):  # the second time in place of the first
        assert write_curves(study_curves(cells, store), tmp_path / "logs") == len(cells) + 1
    above = tmp_path / "logs" / "small" / "mlp"
    found = read(above / "element" / "bidirectional" / "80 %" / "seed 0")
    (cell,) = [cell for at, cell in cells.items() if at.arm == "bidirectional"]
    record: Any = store.result(cell)
    for key, tag in (("validation_accuracy", "accuracy/validation"), ("train_loss", "loss/train")):
        expected = [(row["epoch"], pytest.approx(row[key])) for row in record["history"]]
        assert found[tag] == expected
    regrown = [(e["epoch"], e["regrown"]) for e in record["events"]]
    assert found["weights/regrown"] == regrown
    assert sum(count for _, count in regrown) > 0
    test = record["result"]["test_accuracy"]
    assert found["accuracy/test"] == [(4, pytest.approx(test))]
    assert "weights/pruned" not in read(above / "dense" / "seed 0")


def test_no_part_of_a_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    curves = Curves(("../../a/b", "c"), [{"epoch": 1, "train_loss": 0.5}], [], 0.5)
    write_curves([curves], tmp_path / "logs")
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert read(tmp_path / "logs" / "..-..-a-b" / "c")["loss/train"] == [(1, 0.5)]


def test_without_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(RegrowError, match=r"pip install 'regrow\[tensorboard\]'"):
        write_curves([], tmp_path)
    assert json.dumps([*tmp_path.iterdir()]) == "[]"
