"""Cells: trained once, the same result by any number of workers and after any death of one.

Called as a program, this file is a worker: `test_study.py DIRECTORY [ARM]`; with an arm it says so
when that arm's first epoch has ended, and waits to be ended.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from small_task import TRAINING, small

from regrow.bench.cells import Cell
from regrow.bench.course import Course
from regrow.bench.store import Claimed, Store
from regrow.bench.study import estimate, measured, run_cells, serve
from regrow.bench.trainer import Trainer
from regrow.core.errors import RegrowError
from regrow.recipes import bidirectional_paper, iterative, one_shot

TASK = small()
COMMON = Path(__file__).resolve().parents[2] / "experiments" / "headline" / "common.py"


def one_way(seed: int, **changes: Any) -> Cell:
    cell = Cell(TASK, "mlp", seed, TRAINING, one_shot(0.8, 2, seed=seed))
    return replace(cell, name=f"one_way {seed}", **changes)


def regrown(seed: int) -> Cell:
    program = bidirectional_paper(0.7, 0.9, (1, 1), seed=seed)
    return Cell(TASK, "mlp", seed, TRAINING, program, name=f"regrown {seed}")


CELLS = [one_way(0), regrown(0), one_way(1)]
EVERY = [*CELLS, CELLS[0].dense(), CELLS[2].dense()]


def store_at(directory: Path, **options: Any) -> Store:
    return Store(directory, device="cpu", checkpoint_seconds=0, **options)


def told(cells: list[Cell], store: Store) -> list[dict[str, Any]]:
    """The whole records, without what two runs may differ in."""
    records = []
    for cell in cells:
        record = store.result(cell)
        assert record is not None, cell.label
        assert record["result"].pop("seconds") > 0
        assert record["environment"].pop("date")
        records.append(record)
    return records


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells, finished by this one process without a stop."""
    directory = tmp_path_factory.mktemp("whole")
    store = store_at(directory)
    lines: list[str] = []
    assert run_cells(CELLS, store, tell=lines.append).done == 5
    assert [line[: len("[2/5] one_way 0")] for line in lines] == [
        "[2/5] one_way 0",
        "[3/5] regrown 0",
        "[5/5] one_way 1",
    ]
    for cell in EVERY:
        left = {path.name for path in (directory / "cells" / cell.key).iterdir()}
        assert left == {"result.json", "final", "lock"}
    return directory


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copied")
    return tmp_path / "copied"


def test_a_record_tells_all(whole: Path) -> None:
    store = store_at(whole)
    cell = CELLS[1]
    record = store.result(cell)
    dense = store.result(cell.dense())
    assert record is not None
    assert dense is not None
    assert record["key"] == cell.key
    assert record["facts"] == cell.facts
    assert record["facts"]["dense"] == dense["key"] == cell.dense().key
    result = record["result"]
    assert result["kept"] == round(0.3 * result["total"])
    assert (result["epochs"], result["steps"], result["rehearsed"]) == (2, 16, 0)
    assert 0.2 < result["test_accuracy"] <= 1
    assert [entry["epoch"] for entry in record["history"]] == [1, 2]
    cut, grown = record["events"]
    assert "layers" not in cut
    assert "kept_by_layer" not in cut
    assert sum(grown["kept_by_layer"].values()) == grown["kept"] == result["kept"]
    assert record["environment"]["threads"] == 1
    assert record["environment"]["precision"] == "fp32"
    assert dense["facts"]["program"] is dense["facts"]["dense"] is None
    assert dense["result"]["sparsity"] == 0
    state, keep = store.state(cell)
    assert keep is not None
    assert sum(int(mask.sum()) for mask in keep.values()) == result["kept"]
    assert all(not state[name][~mask].any() for name, mask in keep.items())
    assert store.state(cell.dense())[1] is None


def test_a_finished_cell_is_not_trained_again(copied: Path) -> None:
    events: list[dict[str, Any]] = []
    store = store_at(copied, notify=events.append)
    before = told(EVERY, store)
    for cell in EVERY:
        store.finish(cell)
    assert run_cells(CELLS, store).done == 5
    # Killed after the last measurement and before the record was written.
    (copied / "cells" / CELLS[0].key / "result.json").unlink()
    store.finish(CELLS[0])
    assert not events
    assert told(EVERY, store) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"schema": 0}', "has schema 0, this regrow reads 1; use the regrow that wrote it"),
        ("[]", "has schema None"),
        ('{"schema": 1', "is damaged"),
        ('{"schema": 1, "result": 3}', "is damaged; remove .* to train the cell anew"),
    ],
)
def test_records_of_another_version_are_refused(content: str, words: str, copied: Path) -> None:
    (copied / "cells" / CELLS[0].key / "result.json").write_text(content)
    with pytest.raises(RegrowError, match=words):
        run_cells(CELLS, store_at(copied))


def test_a_dense_network_is_shared(copied: Path) -> None:
    arms: list[tuple[str, int]] = []
    store = store_at(copied, notify=lambda e: arms.append((e["arm"], e["epoch"])))
    changed = replace(
        TRAINING, fine_tune_lr=0.01, fine_tune_epochs=7, distillation=0.9, evidence_batches=1
    )
    cell = Cell(TASK, "mlp", 0, changed, CELLS[0].program, name="distilled")
    assert cell.lr == 0.01
    assert cell.dense().key == CELLS[0].dense().key
    assert store.finish(cell)["result"] != store.finish(CELLS[0])["result"]
    assert arms == [("distilled", 0), ("distilled", 1), ("distilled", 2)]


def test_two_workers_give_what_one_gives(whole: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    command = [sys.executable, __file__, str(tmp_path)]
    lines: list[str] = []
    assert run_cells(CELLS, store, workers=2, command=command, tell=lines.append).done == 5
    assert lines == []
    assert told(EVERY, store) == told(EVERY, store_at(whole))
    # The lines of the workers are in their files; each dense network had one trainer.
    arms = [line for file in tmp_path.glob("*.txt") for line in file.read_text().splitlines()]
    assert sorted(arms) == sorted(cell.label for cell in EVERY)


@pytest.mark.parametrize("end", ["kill", "orphan"])
def test_a_worker_that_dies_leaves_its_cell_free(end: str, whole: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    command = [sys.executable, __file__, str(tmp_path), "regrown 0"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker:
        assert worker.stdout.readline() == b"reached\n"
        with pytest.raises(Claimed):
            store.finish(CELLS[1])
        if end == "kill":
            worker.send_signal(signal.SIGKILL)
        else:
            worker.stdin.close()  # as the system does when the process that started it ends
        assert worker.wait(timeout=20) == (-signal.SIGKILL if end == "kill" else 1)
    folder = tmp_path / "cells" / CELLS[1].key
    assert {path.name for path in folder.iterdir()} == {"lock", "progress"}
    (folder / ".0123.tmp").write_bytes(b"half a checkpoint")
    epochs: list[tuple[str, int]] = []
    again = store_at(tmp_path, notify=lambda e: epochs.append((e["arm"], e["epoch"])))
    assert run_cells(CELLS, again).done == 5
    # Neither the cells before it nor its own first epoch, but for the last step, are done again.
    assert epochs[:2] == [("regrown 0", 0), ("regrown 0", 1)]
    assert ("one_way 0", 0) not in epochs
    assert told(EVERY, again) == told(EVERY, store_at(whole))
    assert {path.name for path in folder.iterdir()} == {"lock", "final", "result.json"}


@pytest.mark.parametrize("arm", ["dense mlp, seed 0", "regrown 0"])
def test_a_study_pauses_on_time(
    arm: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, passed = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock() + passed)
    stop_at = time.monotonic() + 3600

    def dawdle(event: dict[str, Any]) -> None:
        nonlocal passed
        if (event["kind"], event["arm"], event["epoch"]) == ("epoch", arm, 1):
            passed = 3600

    paused = run_cells(CELLS, store_at(tmp_path, stop_at=stop_at, notify=dawdle))
    assert passed
    assert paused.done == (0 if arm.startswith("dense") else 2)
    assert paused.failed == 0
    assert len(list(tmp_path.glob("cells/*/progress"))) == 1
    late = store_at(tmp_path, stop_at=stop_at)
    assert run_cells(CELLS, late) == paused
    store = store_at(tmp_path)
    assert run_cells(CELLS, store).done == 5
    assert told(EVERY, store) == told(EVERY, store_at(whole))


def test_a_failure_is_told_and_stops_nothing_else(copied: Path) -> None:
    calls: list[float] = []

    def hook(model: Any, optimizer: torch.optim.Optimizer, pruning: Any) -> None:
        calls.append(pruning.sparsity)
        if len(calls) < 3:
            raise RuntimeError("two lines\nof trouble")

    tagged = one_way(0, tag="odd")
    shutil.rmtree(copied / "cells" / CELLS[2].key)
    cells = [tagged, CELLS[2]]
    lines: list[str] = []
    for _ in range(2):
        store = store_at(copied, hooks={"odd": hook})
        now = run_cells(cells, store, tell=lines.append)
        assert (now.cells, now.done, now.failed) == (4, 3, 1)
        text = (copied / "cells" / tagged.key / "error.txt").read_text()
        assert text.startswith("Traceback")
        assert store.error(tagged) == "of trouble"
        with pytest.raises(RegrowError, match="are not at"):
            store.state(tagged)
    assert len(lines) == 3
    failure = f"one_way 0 ({tagged.key}) failed: RuntimeError: two lines of trouble"
    assert lines[0] == lines[2] == failure
    assert run_cells(cells, store).failed == 0  # The third time all is well.
    assert store.error(tagged) is None
    assert calls == [pytest.approx(0.8, abs=1e-3)] * 3
    first, second = told([CELLS[0], tagged], store)
    assert first["result"] == second["result"]  # A hook that changes nothing.
    assert first["key"] != second["key"]


def test_a_cell_whose_error_cannot_be_noted_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise RegrowError("the folder cannot be made")

    monkeypatch.setattr(Store, "finish", refused)
    lines: list[str] = []
    now = run_cells([one_way(0)], store_at(tmp_path), tell=lines.append)
    assert (now.done, len(lines)) == (0, 1)
    assert "cannot be made" in lines[0]


def test_what_starts_from_a_failed_network_is_not_tried(tmp_path: Path) -> None:
    wild = replace(TRAINING, lr=1e30)
    cells = [
        Cell(TASK, "mlp", 0, wild, one_shot(sparsity, 2), name=str(sparsity))
        for sparsity in (0.5, 0.6)
    ]
    lines: list[str] = []
    store = store_at(tmp_path)
    now = run_cells(cells, store, tell=lines.append)
    assert (now.cells, now.done, now.failed) == (3, 0, 3)
    assert len(lines) == 1
    assert "became nan" in str(store.error(cells[0].dense()))


def test_bad_cells_are_refused_before_any_training(tmp_path: Path) -> None:
    store = store_at(tmp_path, hooks={"faster": lambda *_: None})
    with pytest.raises(RegrowError, match=r"unknown tag of cell 'one_way 0': 'fastr'\. Did you"):
        store.finish(one_way(0, tag="fastr"))
    unfit = one_way(0, program=one_shot(0.8, 2, include="no_such_layer"))
    with pytest.raises(RegrowError, match="no_such_layer"):
        store.finish(unfit)
    assert not list(tmp_path.glob("cells/*/progress"))
    assert not store.finished(unfit.dense())
    with pytest.raises(RegrowError, match="unknown model of task 'small': 'mpl'"):
        replace(CELLS[0], model="mpl")
    with pytest.raises(RegrowError, match="is dense and has the tag"):
        replace(CELLS[0].dense(), tag="faster")
    with pytest.raises(RegrowError, match="at least 1 epoch"):
        replace(CELLS[0], cycles=(2, 0))
    with pytest.raises(RegrowError, match="make the two agree"):
        replace(CELLS[0], cycles=(3,))
    for workers in (0, 2):
        with pytest.raises(RegrowError, match=f"{workers} workers cannot be started"):
            run_cells(CELLS, store, workers=workers)


def test_every_fact_is_in_the_key() -> None:
    cell = CELLS[0]
    changes: list[dict[str, Any]] = [
        {},
        {"task": replace(TASK, name="other")},
        {"task": replace(TASK, models={"n": TASK.models["mlp"]}), "model": "n"},
        {"seed": 5},
        {"program": one_shot(0.81, 2)},
        {"program": one_shot(0.8, 2, seed=5)},
        {"program": one_shot(0.8, 2, criterion="magnitude")},
        {"cycles": (1, 1)},
        {"program": one_shot(0.8, 3), "cycles": (1, 2)},
        {"lr": 0.051},
        {"tag": "faster"},
        {"training": replace(TRAINING, lr=0.3)},  # of the dense network it starts from
        {"training": replace(TRAINING, dense_epochs=3)},
        *(
            {"training": replace(TRAINING, **{name: value})}
            for name, value in {
                "batch_size": 8,
                "momentum": 0.8,
                "nesterov": False,
                "weight_decay": 1e-3,
                "label_smoothing": 0.1,
                "precision": "bf16",
                "channels_last": False,
                "evidence_batches": 3,
                "rehearsal_steps": 3,
                "distillation": 0.5,
                "temperature": 2.0,
                "compile": "on",
                "threads": 2,
            }.items()
        ),
    ]
    keys = [replace(cell, **change).key for change in changes]
    assert len(set(keys)) == len(keys) == 26
    assert cell.dense().key not in keys
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    longer = replace(cell.dense(), cycles=(4,))
    assert longer.dense() is longer
    assert longer.key != cell.dense().key


def test_nothing_else_is_in_the_key() -> None:
    cell = CELLS[0]
    same: list[dict[str, Any]] = [
        {"name": "another"},
        {"cycles": (2,), "lr": 0.05},  # as they are by default
        {"cycles": [2]},
        {"training": replace(TRAINING, fine_tune_epochs=9, fine_tune_lr=0.7)},  # lr is given
        {"training": replace(TRAINING, threads=0)},
        {"task": small(training=replace(TRAINING, lr=0.9))},
    ]
    assert {replace(cell, **change).key for change in same} == {cell.key}
    dense = cell.dense()
    other = replace(TRAINING, distillation=0.5, rehearsal_steps=3, evidence_batches=9)
    assert replace(dense, training=other).key == dense.key
    assert replace(cell, training=other).dense().key == dense.key
    patient = Cell(TASK, "mlp", 0, TRAINING, iterative(0.8, 12, cuts=2, patience=3))
    assert (patient.cycles, patient.epochs, patient.lr) == ((12,), 12, 0.05)


def test_the_estimate_in_closed_form(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    assert estimate(CELLS, store) == estimate([*CELLS, *EVERY], store)
    empty = estimate(CELLS, store)
    assert (empty.cells, empty.done, empty.failed, empty.epochs, empty.minutes) == (
        *(5, 0, 0, 10),
        None,
    )
    assert empty.text() == "0 of 5 cells done; 10 epochs left, for how long is unknown yet"

    def pretend(cell: Cell, seconds: float, epochs: int) -> None:
        folder = tmp_path / "cells" / cell.key
        folder.mkdir(parents=True)
        result = {"result": {"seconds": seconds, "epochs": epochs}}
        (folder / "result.json").write_text(json.dumps({"schema": 1, **result}))

    pretend(CELLS[0].dense(), 240, 2)
    # As long as no pruned cell is finished, they are taken to cost what dense ones do.
    assert estimate(CELLS, store).minutes == pytest.approx(8 * 2)
    pretend(CELLS[0], 360, 2)
    pretend(CELLS[1], 240, 2)
    now = estimate(CELLS, store)
    assert (now.done, now.epochs) == (3, 4)
    assert now.minutes == pytest.approx(2 * 2 + 2 * 600 / 4 / 60)
    assert now.text(3) == "3 of 5 cells done; 4 epochs left, about 3.0 minutes with 3 at work"


def test_an_estimate_before_anything_is_finished(tmp_path: Path, copied: Path) -> None:
    store = store_at(tmp_path / "new")
    # A network that is built small is taken to cost what the largest of its task does.
    thin = replace(TASK, models={**TASK.models, "thin": TASK.models["mlp"]})
    small = Cell(thin, "thin", 0, TRAINING, cycles=(6,))
    minutes = estimate([*CELLS, small], store, {"small": {"mlp": 30.0}}).minutes
    assert minutes == pytest.approx((10 + 6) * 30 / 60)
    rates = measured([*CELLS, small], store)
    assert list(rates) == ["small"]
    assert list(rates["small"]) == ["mlp"]
    assert 0 < rates["small"]["mlp"] < 60
    assert not store.directory.exists()
    # All that work at the study know of it, until there is better.
    store.directory.mkdir()
    store.note_rates(rates)
    known = estimate(CELLS, store_at(store.directory)).minutes
    assert known == pytest.approx(10 * rates["small"]["mlp"] / 60)
    for text in ("{", "[1]", '{"small": 1}', '{"small": {"mlp": "x"}}'):
        (store.directory / "rates.json").write_text(text)
        assert estimate(CELLS, store).minutes is None
    assert measured(CELLS, store_at(copied)) == {}


def test_what_cannot_be_tried_here_has_no_estimate(tmp_path: Path) -> None:
    def elsewhere(_: Path | None) -> Any:
        raise RegrowError("not here")

    store = store_at(tmp_path)
    away = replace(TASK, splits=elsewhere)
    cell = Cell(away, "mlp", 0, TRAINING, one_shot(0.8, 2, seed=0))
    assert measured([cell], store) == {}
    assert estimate([cell], store, {}).minutes is None


def test_an_epoch_by_the_median_of_a_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, takes = [0.0], iter([50.0, 3.0, 0.25, 2.0, 9.0])

    def step(*_: Any) -> torch.Tensor:
        clock[0] += next(takes)
        return torch.zeros(())

    def look(*_: Any) -> float:
        clock[0] += 7
        return 0.5

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Course, "_step", step)
    monkeypatch.setattr(Trainer, "accuracy", look)
    # Eight batches; the first step warms up, and four are enough as slow as these are.
    found = store_at(tmp_path).seconds_per_epoch(CELLS[0].dense())
    assert found == pytest.approx(8 * 2.0 + 7)
    assert next(takes) == 9.0


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("headline_common", COMMON)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "headline_common", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RECORDS", tmp_path / "records")
    return module


def test_a_table_is_made_of_its_record(
    common: ModuleType,
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arms = {"one_way": one_way, "regrown": regrown}
    table = common.Table("small", arms, {"one_way": (0, 1), "regrown": (0,)})
    assert list(table.cells()) == [("one_way", 0), ("regrown", 0), ("one_way", 1)]
    assert list(table.cells("one_*", [1, 7])) == [("one_way", 1)]
    written: list[dict[str, Any]] = []

    def call(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["table.py", *options])
        common.main(table, written.append, "A table.")
        return capsys.readouterr().out

    here = ("--out", str(copied), "--device", "cpu")
    listed = call(*here, "--dry-run").splitlines()
    assert listed[0] == "5 of 5 cells done; 0 epochs left, about 0.0 minutes with 1 at work"
    assert listed[1] == f"{CELLS[0].key}     done    2 epochs  one_way, seed 0"
    assert not table.path.exists()
    call(*here)
    record = json.loads(table.path.read_text())
    assert written == [record]
    assert [(e["arm"], e["seed"], e["key"]) for e in record["cells"]] == [
        ("one_way", 0, CELLS[0].key),
        ("regrown", 0, CELLS[1].key),
        ("one_way", 1, CELLS[2].key),
    ]
    assert [e["key"] for e in record["dense"]] == [EVERY[3].key, EVERY[4].key]
    full = store_at(copied).result(CELLS[1])
    assert full is not None
    entry = record["cells"][1]
    assert entry["result"] == full["result"]
    assert entry["facts"] == full["facts"]
    assert entry["validation"] == [e["validation_accuracy"] for e in full["history"]]
    # Without the cells the record stays as it is, and makes the table.
    shutil.rmtree(copied)
    call("--table")
    common.collect(table, store_at(copied))
    assert written[1] == json.loads(table.path.read_text()) == record
    # An arm that is another now is not in the record any more.
    changed = common.Table("small", {**arms, "regrown": one_way}, table.seeds)
    common.collect(replace(changed, arms={**arms, "regrown": _sparser}), store_at(copied))
    assert "1 cells are missing" in call("--table")
    assert len(written) == 2
    with pytest.raises(SystemExit, match="no cell is left"):
        call("--only", "nothing")


def _sparser(seed: int) -> Cell:
    return one_way(seed, program=one_shot(0.9, 2))


def _worker(directory: Path, waits: str | None) -> None:
    log = directory / f"{time.monotonic_ns()}.txt"

    def notify(event: dict[str, Any]) -> None:
        if event["kind"] == "arm" and waits is None:
            with log.open("a") as file:
                file.write(f"{event['arm']}\n")
        elif (event["kind"], event["arm"], event["epoch"]) == ("epoch", waits, 1):
            print("reached", flush=True)
            time.sleep(60)

    serve(CELLS, store_at(directory, notify=notify), workers=2, tell=lambda line: None)


if __name__ == "__main__":
    _worker(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
