"""Cells that start from initial weights: what they are, and what they do not depend on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_task import TRAINING, small
from torch import Tensor

from regrow.bench.cells import Cell
from regrow.bench.comparison.study_file import study_of
from regrow.bench.store import Store
from regrow.bench.study import run_cells
from regrow.recipes import one_shot, snip, synflow

TASK = small()
CELL = Cell(TASK, "mlp", 0, TRAINING, snip(0.8, 6))


def test_what_it_is() -> None:
    assert CELL.from_scratch
    assert CELL.dense() is CELL
    assert CELL.facts["dense"] is None
    assert (CELL.cycles, CELL.lr) == ((6,), TRAINING.lr)
    assert json.loads(json.dumps(CELL.facts))["program"]["start"] == "initial"
    usual = Cell(TASK, "mlp", 0, TRAINING, replace(snip(0.8, 6), start="dense"))
    assert not usual.from_scratch
    assert usual.lr == TRAINING.fine_tune_lr
    assert usual.key != CELL.key
    assert replace(CELL, training=replace(TRAINING, dense_epochs=9)).key == CELL.key


def test_keys_of_older_cells_are_what_they_were() -> None:
    assert Cell(TASK, "mlp", 0, TRAINING).key == "bdb7aec751aa6ef9"
    assert Cell(TASK, "mlp", 0, TRAINING, one_shot(0.8, 4)).key == "2aa4a722645be381"


def test_it_is_finished_alone_from_the_tasks_initial_weights(tmp_path: Path) -> None:
    met: list[dict[str, Tensor]] = []

    def hook(model: Any, optimizer: Any, pruning: Any) -> None:
        met.append({n: t.clone() for n, t in model.state_dict().items()})

    cell = replace(CELL, program=synflow(0.8, 6, rounds=5), tag="look")
    store = Store(tmp_path, device="cpu", hooks={"look": hook})
    now = run_cells([cell], store)
    assert (now.cells, now.done) == (1, 1)
    assert len(list((tmp_path / "cells").iterdir())) == 1
    state, keep = store.state(cell)
    assert keep is not None
    from regrow.bench.arm import initial

    first = initial(TASK, "mlp", 0)().state_dict()
    for name, tensor in met[0].items():
        assert torch.equal(tensor, first[name] * keep[name] if name in keep else first[name])
    assert not any(bool(state[n][~m].any()) for n, m in keep.items())


def test_in_a_study_it_gets_the_dense_epochs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrow.bench.comparison.grid.find_task", lambda name: small())
    table = {
        "task": "small",
        "strategies": ["one_shot", "snip", "grasp", "synflow", "cops"],
        "sparsities": [0.5, 0.8],
        "seeds": 1,
        "epochs": 5,
        "trials": [0.5, 1.0],
    }
    cells = study_of({"grid": [table]}, "s", "s").cells()
    for at, cell in cells.items():
        if at.arm in ("snip", "grasp", "synflow", "cops"):
            assert cell.from_scratch
            assert cell.epochs == TRAINING.dense_epochs + 5
            assert cell.lr == TRAINING.lr * at.trial
            assert cell.program is not None
            assert cell.program.sparsity == at.sparsity
        elif at.arm == "one_shot":
            assert (cell.epochs, cell.lr) == (5, TRAINING.fine_tune_lr * at.trial)
    assert not any("snip, shuffled" in at.arm for at in cells)
