"""Fairness: one start, one number of steps, one learning-rate curve, one look at the test set."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_task import TRAINING, configured, small, splits, trained
from torch import Tensor

import regrow.bench.course
import regrow.bench.deliver
from regrow.bench import TensorPair
from regrow.bench.job import Job, learning_rate
from regrow.bench.trainer import Trainer
from regrow.core.errors import RegrowError
from regrow.export.packed import pack

CONTROLS = ("one_way", "gradual", "random_regrowth", "no_regrowth")
RUNS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "bidirectional_paper": (["sparsity=0.7", "overshoot=0.9", "epochs=[3,3]"], CONTROLS),
    "iterative": (["sparsity=0.8", "cuts=2", "epochs=20", "patience=2"], CONTROLS[:2]),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regrow.bench.deliver, "_verify", lambda packed, weights: None)


@pytest.mark.parametrize("recipe", RUNS)
def test_every_arm_is_treated_alike(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, controls = RUNS[recipe]
    parts = splits()
    seen: list[tuple[int, int]] = []  # of the present arm
    rates: list[float] = []
    jobs: dict[str, Job] = {}
    starts: dict[str, dict[str, Tensor]] = {}
    batches: dict[str, list[tuple[int, int]]] = {}
    curves: dict[str, list[float]] = {}

    def augment(points: Tensor, generator: torch.Generator) -> Tensor:
        seen.append((hash(tuple(points.flatten().tolist())), generator.initial_seed()))
        return points

    def rate(progress: float, cycles: Sequence[int], peak: float) -> float:
        rates.append(learning_rate(progress, cycles, peak))
        return rates[-1]

    real_run, real_accuracy = Trainer.run, Trainer.accuracy
    reads: Counter[str] = Counter()
    arm = ""

    def run(self: Trainer, job: Job, checkpoint: Any, **options: Any) -> Any:
        nonlocal arm
        arm = job.arm
        seen.clear()
        rates.clear()
        starts[arm] = {n: t.clone() for n, t in (job.start or {}).items()}
        result = real_run(self, job, checkpoint, **options)
        jobs[arm], batches[arm], curves[arm] = job, list(seen), list(rates)
        return result

    def accuracy(self: Trainer, model: Any, data: TensorPair) -> float:
        reads[f"{arm} {len(data)}"] += 1
        return real_accuracy(self, model, data)

    # Every way to the test images leads past this.
    touched: Counter[str] = Counter()

    class Watched(TensorPair):
        def __getattribute__(self, name: str) -> Any:
            if name == "images":
                touched[arm] += 1
            return super().__getattribute__(name)

    watched = type(parts)(
        parts.train, parts.validation, Watched(parts.test.images, parts.test.labels)
    )
    task = small(splits=lambda _: watched, augment=augment)
    monkeypatch.setattr(Trainer, "run", run)
    monkeypatch.setattr(Trainer, "accuracy", accuracy)
    monkeypatch.setattr(regrow.bench.course, "learning_rate", rate)
    config = configured(monkeypatch, task, recipe, settings, controls)
    touched.clear()
    record = trained(config, task, tmp_path / "run")

    arms = record["arms"]
    assert list(arms) == ["dense", recipe, *controls]
    # The test set: once per arm, by the one function.
    assert {name: reads[f"{name} 60"] for name in arms} == dict.fromkeys(arms, 1)
    touched.pop("", None)  # `run` looks at the shape before any arm
    assert touched == dict.fromkeys(arms, 1)
    pruned = [recipe, *controls]
    first = starts[recipe]
    assert first
    for name in pruned:
        assert all(torch.equal(first[key], starts[name][key]) for key in first), name
        assert curves[name] == curves[recipe], name
        assert batches[name] == batches[recipe], name
        assert arms[name]["epochs"] == arms[recipe]["epochs"]
        assert arms[name]["steps"] == arms[recipe]["steps"]
        assert arms[name]["steps"]["fine_tune"] == len(curves[name])
        assert arms[name]["steps"]["total"] == len(curves[name]) + len(curves["dense"])
    assert len(set(batches[recipe])) == len(batches[recipe]) == len(curves[recipe])
    assert batches[recipe] != batches["dense"]
    assert max(curves[recipe]) <= TRAINING.fine_tune_lr
    if recipe == "bidirectional_paper":
        assert len(curves[recipe]) == 6 * 8
        assert jobs[recipe].cycles == (3, 3)
    else:
        assert 2 * 2 <= arms[recipe]["epochs"]["fine_tune"] <= 20
        assert jobs[recipe].cycles == (20,)


def test_the_cap_of_patience_is_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than the task's fine_tune_epochs (4), and with a patience that is never exhausted.
    task = small()
    settings = ["epochs=11", "cuts=2", "patience=100", "sparsity=0.8"]
    config = configured(monkeypatch, task, "iterative", settings)
    arms = trained(config, task, tmp_path / "run")["arms"]
    assert arms["iterative"]["epochs"]["fine_tune"] == 10  # two cuts of at most five
    assert arms["iterative"]["sparsity"] == pytest.approx(0.8, abs=1e-2)


def test_the_dense_network_is_trained_once_for_all_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out = small(), tmp_path / "run"
    trains: list[str] = []

    def again(*settings: str) -> dict[str, Any]:
        trains.clear()
        for file in (out / "state").glob("bidirectional_paper.*"):
            file.unlink()
        config = configured(monkeypatch, task, "bidirectional_paper", settings, controls=())
        arms: dict[str, Any] = trained(
            config, task, out, notify=lambda event: trains.append(event["arm"])
        )["arms"]
        return arms

    first = again("sparsity=0.5", "overshoot=0.9")
    assert set(trains) == {"dense", "bidirectional_paper"}
    more = ("training.fine_tune_lr=0.02", "training.evidence_batches=3", "epochs=[1,1]")
    other = again("sparsity=0.4", "overshoot=0.8", "training.distillation=0.5", *more)
    assert set(trains) == {"bidirectional_paper"}
    assert other["dense"] == first["dense"]
    assert other["bidirectional_paper"]["sparsity"] != first["bidirectional_paper"]["sparsity"]
    with pytest.raises(RegrowError, match=r"dense\.done belongs to another run"):
        again("sparsity=0.5", "overshoot=0.9", "training.lr=0.05")


def test_history_tells_the_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small()
    config = configured(monkeypatch, task, "bidirectional_paper", RUNS["bidirectional_paper"][0])
    record = trained(config, task, tmp_path / "run")
    arms = json.loads((tmp_path / "run" / "history.json").read_text())["arms"]
    assert list(arms) == ["dense", "bidirectional_paper", "one_way"]
    course = arms["bidirectional_paper"]["epochs"]
    assert [entry["epoch"] for entry in course] == [1, 2, 3, 4, 5, 6]
    assert [entry["phase"] for entry in course] == ["stage 1"] * 3 + ["stage 2"] * 3
    assert [round(entry["sparsity"], 1) for entry in course] == [0.9] * 3 + [0.7] * 3
    events = arms["bidirectional_paper"]["events"]
    assert [(e["kind"], e["epoch"], e["step"]) for e in events] == [
        ("prune", 0, 0),
        ("regrow", 3, 24),
    ]
    total = record["arms"]["dense"]["total"]
    assert [event["kept"] for event in events] == [round(0.1 * total), round(0.3 * total)]
    best = max(entry["validation_accuracy"] for entry in course[3:])
    assert record["arms"]["bidirectional_paper"]["validation_accuracy"] == best


def test_events_of_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small()
    told: dict[str, list[str]] = defaultdict(list)
    config = configured(monkeypatch, task, "one_shot", ["sparsity=0.8"])
    trained(config, task, tmp_path / "run", notify=lambda e: told[e["arm"]].append(e["kind"]))
    assert told == {
        "dense": ["arm", *["epoch"] * 2],
        # Its control one_way is the very same program and is not trained a second time.
        "one_shot": ["arm", *["epoch"] * 4],
    }


@pytest.mark.parametrize("fresh", [False, True])
def test_two_at_one_directory_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    task = small()
    config = configured(monkeypatch, task, "one_shot", ["sparsity=0.8"])
    refused = []

    def another(event: dict[str, Any]) -> None:
        with pytest.raises(RegrowError, match="another process works at") as found:
            trained(config, task, tmp_path / "run", fresh=fresh)
        refused.append(found)

    record = trained(config, task, tmp_path / "run", notify=another)
    assert len(refused) == 2 + 2 + 4  # arms and epochs
    again = trained(config, task, tmp_path / "run", fresh=fresh)
    assert again["arms"]["one_shot"]["test_accuracy"] == record["arms"]["one_shot"]["test_accuracy"]


def test_delivered_files_are_compared_in_a_fresh_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the comparison that this file leaves out elsewhere
    weights = {"a": torch.arange(6.0).reshape(2, 3)}
    (tmp_path / "m.regrow").write_bytes(pack(weights))
    save_file(weights, tmp_path / "m.safetensors")
    regrow.bench.deliver._verify(tmp_path / "m.regrow", tmp_path / "m.safetensors")
    weights["a"][1, 1] += 1e-6
    save_file(weights, tmp_path / "m.safetensors")
    with pytest.raises(RegrowError, match=r"m\.regrow does not give the weights back.*a"):
        regrow.bench.deliver._verify(tmp_path / "m.regrow", tmp_path / "m.safetensors")
