"""The standard tasks end to end on small data, and what a user's task is checked for."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import regrow.bench.deliver
from regrow.bench import Task, Training, gathered
from regrow.bench.arm import fabric_precision
from regrow.bench.config import configure
from regrow.bench.run import run
from regrow.bench.tasks import TASKS, dense_training, find_task
from regrow.core.errors import RegrowError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SHORT = ["training.dense_epochs=1", "epochs=[1,1]", "training.threads=1", "training.compile=off"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regrow.bench.deliver, "_verify", lambda packed, weights: None)


def write_cifar10(root: Path, per_file: int) -> Path:
    """The official binary layout with pictures that are easy to tell apart.

    Class c is a bright square at the c-th place of a grid, on noise.
    """
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    random = np.random.RandomState(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        labels = np.arange(per_file, dtype=np.uint8) % 10
        images = random.randint(0, 120, (per_file, 3, 32, 32)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 4)
            image[:, 4 + 8 * row : 12 + 8 * row, 8 * column : 8 * column + 8] += 130
        records = np.concatenate([labels[:, None], images.reshape(per_file, -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
    return root


def small_run(tmp_path: Path, data: Path, *settings: str, **options: Any) -> dict[str, Any]:
    config, task = configure(
        "bidirectional_paper", task="cifar10", settings=[*SHORT, *settings], **options
    )
    return run(config, task, tmp_path / "run", data_dir=data, device="cpu")


@pytest.mark.slow
def test_resnet20_on_a_folder_in_the_layout_of_cifar10(tmp_path: Path) -> None:
    data = write_cifar10(tmp_path, 60)
    more = ["training.dense_epochs=6", "epochs=[2,4]", "training.batch_size=30"]
    more += ["sparsity=0.6", "overshoot=0.8", "training.evidence_batches=2"]
    record = small_run(tmp_path, data, *more)
    arms = record["arms"]
    assert record["model"] == "resnet20"
    assert arms["bidirectional_paper"]["kept"] == round(0.4 * 268_336) == arms["one_way"]["kept"]
    assert arms["dense"]["steps"]["total"] == 6 * 9  # 270 images are left for training
    assert arms["dense"]["test_accuracy"] > 0.3
    assert arms["bidirectional_paper"]["test_accuracy"] > 0.3


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_precisions(precision: str, tmp_path: Path) -> None:
    data = write_cifar10(tmp_path, 20)
    more = ["training.batch_size=30", "training.evidence_batches=1"]
    record = small_run(tmp_path, data, f"training.precision={precision}", *more, controls=())
    used = record["environment"]["precision"]
    assert used == "bf16" if precision == "bf16" else used in ("fp32", "bf16")
    expected = {"bf16": "bf16-mixed", "fp32": "32-true"}[used]
    assert fabric_precision(Training(precision=precision)) == expected  # type: ignore[arg-type]
    assert record["arms"]["bidirectional_paper"]["kept"] == round(0.03 * 268_336)


@pytest.mark.slow  # half a minute
@pytest.mark.skipif(not (SHARED / "load.py").exists(), reason="the data folder is not here")
def test_resnet20_on_the_small_real_cifar10(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    spec = importlib.util.spec_from_file_location("shared_load", SHARED / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.export_cifar10(tmp_path, small=True)
    more = ["training.evidence_batches=4", "training.lr=0.05", "training.fine_tune_lr=0.05"]
    record = small_run(tmp_path, tmp_path, *more, "sparsity=0.5", "overshoot=0.7", controls=())
    arms = record["arms"]
    # A tenth is chance; one epoch over 4,500 images is little.
    assert arms["dense"]["test_accuracy"] > 0.15
    assert arms["bidirectional_paper"]["test_accuracy"] > 0.15
    assert arms["bidirectional_paper"]["kept"] == 134_168


@pytest.mark.parametrize("name", [row.name for row in TASKS])
def test_every_task_builds_every_network(name: str) -> None:
    task = find_task(name)
    assert task.name == name
    shapes = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28), "spoken_digits": (32, 64)}
    shape = shapes.get(name, (3, 32, 32))
    classes = 100 if name == "cifar100" else 10
    for make in task.models.values():
        first, second = (make(torch.Generator().manual_seed(1)) for _ in range(2))
        assert all(
            torch.equal(a, b)
            for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        )
        with torch.no_grad():
            assert first.eval()(torch.zeros(2, *shape)).shape == (2, classes)


def test_a_dataset_is_gathered() -> None:
    inputs, labels = torch.randn(7, 2, 3), torch.arange(7)
    pair = gathered(TensorDataset(inputs, labels))
    assert torch.equal(pair.images, inputs)
    assert torch.equal(pair.labels, labels)
    assert pair.labels.dtype == torch.int64
    with pytest.raises(RegrowError, match="TensorDataset holds no sample"):
        gathered(TensorDataset(inputs[:0], labels[:0]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -0.1},
        {"fine_tune_lr": math.nan},
        {"weight_decay": math.inf},
        {"momentum": 1.5},
        {"label_smoothing": 2.0},
        {"threads": -1},
        {"dense_epochs": 0},
        {"batch_size": 0},
        {"rehearsal_steps": 0},
        {"distillation": 1.1},
        {"distillation": math.nan},
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"compile": "always"},
        {"precision": "fp16"},
    ],
    ids=str,
)
def test_training_is_checked_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(RegrowError, match=rf"training\.{next(iter(wrong))} is"):
        Training(**wrong)


def test_what_the_dense_network_depends_on() -> None:
    task = find_task("digits").training
    later = replace(
        task,
        fine_tune_epochs=7,
        fine_tune_lr=0.3,
        evidence_batches=2,
        rehearsal_steps=5,
        distillation=0.5,
        temperature=2.0,
    )
    assert dense_training(later) == dense_training(task)
    assert dense_training(dense_training(task)) == dense_training(task)
    others: list[dict[str, Any]] = [
        {"dense_epochs": 7},
        {"batch_size": 7},
        {"lr": 0.3},
        {"momentum": 0.3},
        {"nesterov": False},
        {"weight_decay": 0.0},
        {"label_smoothing": 0.3},
        {"precision": "bf16"},
        {"channels_last": True},
        {"compile": "on"},
        {"threads": 2},
    ]
    for change in others:
        assert dense_training(replace(task, **change)) != dense_training(task), change
    # Every field is in one of the two lists.
    named = {key for change in others for key in change}
    changed = {f.name for f in fields(Training) if getattr(later, f.name) != getattr(task, f.name)}
    assert named | changed == {f.name for f in fields(Training)}
    assert not named & changed


def test_the_current_directory_is_looked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own_task_of_tests.py").write_text(
        "from torch import nn\nfrom regrow.bench import Task\n"
        "def make():\n    return Task('own', lambda d: None, {'m': lambda g: nn.Linear(2, 2)})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert isinstance(find_task("mine.own_task_of_tests:make"), Task)
    with pytest.raises(RegrowError, match=r"'mine\.own_task_of_tests:mke' cannot be found.*mke"):
        find_task("mine.own_task_of_tests:mke")
    with pytest.raises(RegrowError, match="Did you mean 'digits'"):
        find_task("digit")
