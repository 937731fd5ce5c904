"""Pausing, hooks, rehearsals, distillation and compilation in the training of an arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from small_task import TRAINING, small
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regrow.bench.course
import regrow.engine.plan
from regrow.bench import Task
from regrow.bench.compilation import _works, compiles
from regrow.bench.course import Course
from regrow.bench.distill import distillation_loss
from regrow.bench.job import Job, Paused, Trained, learning_rate
from regrow.bench.state import StateFile
from regrow.bench.trainer import Trainer
from regrow.core.budget import Budget
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.core.table import Row, Table
from regrow.engine.pruning import Pruning
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.allocate.global_ import Global
from regrow.recipes import bidirectional_paper, iterative, one_shot

MARK = b"0" * 32
BOTH_WAYS = bidirectional_paper(0.5, 0.8, (2, 2))


def plain_network(_: torch.Generator) -> nn.Module:
    """Without dropout, so that its loss can be worked out by hand."""
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def trainer_of(task: Task, device: str = "cpu", **changes: Any) -> Trainer:
    fabric = Fabric(accelerator=device, devices=1)
    fabric.launch()
    parts = task.splits(None)
    (make,) = task.models.values()

    def make_model() -> nn.Module:
        torch.manual_seed(5)
        return make(torch.Generator())

    training = replace(TRAINING, channels_last=False, **changes)
    return Trainer(
        fabric, task, training, make_model, parts.train, parts.validation, 3, lambda event: None
    )


def start(make: Callable[[torch.Generator], nn.Module]) -> dict[str, Tensor]:
    torch.manual_seed(6)
    return make(torch.Generator()).state_dict()


def job(program: Any = BOTH_WAYS, epochs: int = 4, **changes: Any) -> Job:
    weights = start(small().models["mlp"])
    return replace(Job("arm", weights, program, (epochs,), epochs, 0.05), **changes)


def assert_equal(first: Trained, second: Trained) -> None:
    assert first.state.keys() == second.state.keys()
    assert all(torch.equal(first.state[name], tensor) for name, tensor in second.state.items())
    assert (first.keep is None) == (second.keep is None)
    for name, mask in (first.keep or {}).items():
        assert second.keep is not None
        assert torch.equal(mask, second.keep[name])
    for name in ("epochs", "steps", "rehearsed", "validation_accuracy", "history", "events"):
        assert getattr(first, name) == getattr(second, name), name


def step_by_step(trainer: Trainer, task: Job, file: StateFile) -> tuple[Trained, int]:
    """The arm, paused after every step that does not complete it."""
    told: list[str] = []
    while True:
        try:
            trained = trainer.run(task, file, stop_at=0.0)
        except Paused as paused:
            told.append(str(paused))
        else:
            assert all(f"paused after {n} steps" in text for n, text in enumerate(told, 1))
            return trained, len(told)


@pytest.mark.parametrize(
    "asked",
    [
        job(),
        job(None, 2, start=None),
        job(iterative(0.8, 6, 2, patience=1), 6),
    ],
    ids=["bidirectional", "dense", "patience"],
)
def test_paused_after_every_step(asked: Job, tmp_path: Path) -> None:
    trainer = trainer_of(small())
    whole = trainer.run(asked, StateFile(tmp_path / "whole", MARK))
    assert not (tmp_path / "whole").exists()  # too short for the interval of checkpoints
    parts, pauses = step_by_step(trainer, asked, StateFile(tmp_path / "parts", MARK))
    assert pauses == whole.steps - 1
    assert_equal(whole, parts)


def test_time_that_does_not_come_changes_nothing(tmp_path: Path) -> None:
    trainer = trainer_of(small())
    file = StateFile(tmp_path / "arm", MARK)
    ran = trainer.run(job(), file, stop_at=math.inf)
    assert_equal(ran, trainer.run(job(), file))
    assert not file.path.exists()
    assert not issubclass(Paused, RegrowError)


def test_a_hook_meets_the_live_objects_at_every_start(tmp_path: Path) -> None:
    met: list[tuple[int, int]] = []

    def hook(model: nn.Module, optimizer: torch.optim.Optimizer, pruning: Pruning) -> None:
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert owned == {id(p) for p in model.parameters()}
        zeros = sum(int((p == 0).sum()) for n, p in model.named_parameters() if n in pruning.masks)
        assert zeros >= sum(pruning.masks.total.values()) - sum(pruning.masks.kept.values())
        met.append((len(pruning.events), zeros))

    trainer = trainer_of(small())
    _, pauses = step_by_step(trainer, job(hook=hook), StateFile(tmp_path / "arm", MARK))
    # The first cut has been made already; after epoch 2 (16 steps) so has the regrowth.
    assert [events for events, _ in met] == [1] * 16 + [2] * 16
    assert len(met) == pauses + 1
    trainer.run(job(None, 2, start=None, hook=hook), StateFile(tmp_path / "dense", MARK))
    assert len(met) == pauses + 1  # nothing is attached to a dense arm


SCORES: list[float] = []


@dataclass(frozen=True)
class Tried(Global):
    """The global ranking, after trying it out twice."""

    needs = frozenset({Need("trial")})

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        found = super().counts(weights, budget, pooled, evidence)
        if evidence.trial is not None:
            SCORES.extend(evidence.trial(found) for _ in range(2))
        return found


def test_rehearsals_are_counted_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table("allocation", *ALLOCATIONS, Row("tried", Tried, "-"))
    monkeypatch.setattr(regrow.engine.plan, "ALLOCATIONS", table)
    seen: list[tuple[float, int]] = []  # learning rate and the batch's first sample

    def augment(points: Tensor, generator: torch.Generator) -> Tensor:
        seen.append((rates[-1], hash(tuple(points[0].tolist()))))
        return points + 0.01 * torch.randn(points.shape, generator=generator)

    rates: list[float] = []

    def rate(*args: Any) -> float:
        rates.append(learning_rate(*args))
        return rates[-1]

    monkeypatch.setattr(regrow.bench.course, "learning_rate", rate)
    trainer = trainer_of(small(augment=augment), rehearsal_steps=9)
    asked = job(bidirectional_paper(0.5, 0.8, (2, 2), layers=Tried()), cycles=(2, 2))
    SCORES.clear()
    whole = trainer.run(asked, StateFile(tmp_path / "whole", MARK))
    assert whole.steps == 4 * 8
    assert whole.rehearsed == 2 * 9
    assert len(seen) == whole.steps + whole.rehearsed
    # At the end of the first cycle the rate is almost 0; what follows is a tenth of the peak.
    tried = seen[16 : 16 + 18]
    assert [rate for rate, _ in tried] == [pytest.approx(0.005)] * 18
    assert 0 < seen[15][0] < 0.002
    # Each in an order of its own, and of an epoch's eight batches none twice.
    first, second = ([sample for _, sample in tried[i : i + 8]] for i in (0, 9))
    assert len(set(first)) == len(set(second)) == 8
    assert first != second
    scores = list(SCORES)
    assert len(scores) == 2
    assert all(score * 45 == pytest.approx(round(score * 45)) for score in scores)
    assert all(0.5 < score <= 1 for score in scores)
    # Weights, buffers, moments and all counts are those of the same arm without any trial.
    without = trainer.run(job(cycles=(2, 2)), StateFile(tmp_path / "without", MARK))
    assert without.rehearsed == 0
    assert_equal(replace(whole, rehearsed=0), without)
    SCORES.clear()
    parts, _ = step_by_step(trainer, asked, StateFile(tmp_path / "parts", MARK))
    assert_equal(whole, parts)
    assert scores == SCORES


def test_a_rehearsal_looks_at_a_thousand_validation_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table("allocation", *ALLOCATIONS, Row("tried", Tried, "-"))
    monkeypatch.setattr(regrow.engine.plan, "ALLOCATIONS", table)
    sizes: list[int] = []
    real = Trainer.accuracy

    def accuracy(self: Trainer, model: nn.Module, data: Any) -> float:
        sizes.append(len(data))
        return real(self, model, data)

    parts = small().splits(None)
    many = parts.validation.take(torch.arange(1_100) % 45)
    monkeypatch.setattr(Trainer, "accuracy", accuracy)
    trainer = trainer_of(small(splits=lambda _: replace(parts, validation=many)), rehearsal_steps=1)
    program = bidirectional_paper(0.5, 0.8, (1, 1), layers=Tried())
    trainer.run(job(program, 2), StateFile(tmp_path / "arm", MARK))
    assert sizes == [1_100, 1_000, 1_000, 1_100]


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_distilled_loss_by_hand(weight: float, tmp_path: Path) -> None:
    task = small(models={"plain": plain_network})
    weights = start(plain_network)
    asked = job(one_shot(0.6, 1), 1, start=weights)
    changes: dict[str, Any] = {"distillation": weight, "temperature": 3.0, "batch_size": 120}
    trainer = trainer_of(task, **changes)
    trained = trainer.run(asked, StateFile(tmp_path / "arm", MARK))
    # One step over all of the data: its loss is that of the network as it was cut.
    teacher, student = (plain_network(torch.Generator()) for _ in range(2))
    teacher.load_state_dict(weights)
    assert trained.keep is not None
    cut = {n: t * trained.keep[n] if n in trained.keep else t for n, t in weights.items()}
    student.load_state_dict(cut)
    data = task.splits(None).train
    with torch.no_grad():
        answers = student.train()(data.images).double()
        softened = (teacher.eval()(data.images).double() / 3).softmax(1)
    divergence = (softened * (softened.log() - (answers / 3).softmax(1).log())).sum(1).mean()
    expected = (1 - weight) * cross_entropy(answers, data.labels) + weight * 9 * divergence
    assert divergence > 0.001
    assert trained.history[0]["train_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_distillation_at_zero_and_where_there_is_no_teacher(tmp_path: Path) -> None:
    def trained(asked: Job, **changes: Any) -> Trained:
        return trainer_of(small(), **changes).run(asked, StateFile(tmp_path / "none", MARK))

    usual = trained(job())
    assert_equal(usual, trained(job(), distillation=0.0, temperature=9.0))
    other = trained(job(), distillation=0.5)
    assert any(not torch.equal(usual.state[name], other.state[name]) for name in usual.state)
    for alone in (job(None, 2), job(start=None)):
        assert_equal(trained(alone), trained(alone, distillation=0.5))


def test_evidence_is_of_the_tasks_own_loss(tmp_path: Path) -> None:
    def events(weight: float) -> list[dict[str, Any]]:
        trainer = trainer_of(small(), distillation=weight)
        asked = job(one_shot(0.5, 1, criterion="taylor"), 1)
        return trainer.run(asked, StateFile(tmp_path / "none", MARK)).events

    assert events(0.0) == events(0.9)


def test_distillation_loss_in_closed_form() -> None:
    # Two classes, T = 2: the teacher's odds are sqrt(e^2) = e, the student's 1.
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]], requires_grad=True)
    p = math.e / (1 + math.e)
    loss = distillation_loss(student, teacher, 2.0)
    assert float(loss.detach()) == pytest.approx(
        4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))), rel=1e-6
    )
    loss.backward()
    # T (q - p), the gradient of a cross-entropy but for the factor T.
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx([2 * (0.5 - p), 2 * (p - 0.5)], rel=1e-5)
    both = torch.cat([student, student]).detach(), torch.cat([teacher, student]).detach()
    assert float(distillation_loss(*both, 2.0)) == pytest.approx(float(loss.detach()) / 2, rel=1e-6)
    pairs: list[Any] = [(student, teacher[0]), ((student,), teacher), (student[0], teacher[0])]
    for one, two in pairs:
        with pytest.raises(RegrowError, match=r"training\.distillation needs networks"):
            distillation_loss(one, two, 2.0)


def test_compiled_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small(models={"plain": plain_network})
    dense = job(None, 1, start=None)
    pruned = job(start=start(plain_network))

    def trained(mode: str) -> list[Trained]:
        trainer = trainer_of(task, compile=mode, batch_size=50)  # the last batch has 20
        first = trainer.run(dense, StateFile(tmp_path / "none", MARK))
        parts, _ = step_by_step(trainer, pruned, StateFile(tmp_path / mode, MARK))
        return [first, parts]

    graphs: list[tuple[int, ...]] = []

    def backend(graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        graphs.extend(tuple(t.shape) for t in inputs if t.shape[1:] == (12,) and t.shape[0] != 16)
        forward: Callable[..., Any] = graph.forward
        return forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **how: real(m, **{**how, "backend": backend}))
    without = trained("off")
    assert not graphs
    for off, on in zip(without, trained("on"), strict=True):
        assert_equal(off, on)
        assert list(on.state) == list(plain_network(torch.Generator()).state_dict())
    # Once, for the size of whole batches: neither evaluation nor another arm asks again.
    assert graphs == [(50, 12)]


def test_where_training_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    _works.cache_clear()
    assert compiles("on", cpu)
    assert not compiles("auto", cpu)
    assert not compiles("off", cpu)
    assert not compiles("off", cuda)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no C compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    _works.cache_clear()
    with pytest.warns(UserWarning, match=r"not compiled.*here: no C compiler$"):
        assert not compiles("auto", cuda)
    assert not compiles("auto", cuda)  # told once
    with pytest.warns(UserWarning, match="no C compiler"):
        assert not compiles("on", cpu)
    _works.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@pytest.mark.parametrize("mode", ["off", "on"])
def test_on_an_accelerator(mode: str, tmp_path: Path) -> None:
    trainer = trainer_of(small(), "cuda", compile=mode, distillation=0.5)
    assert trainer.train.images.is_cuda
    assert trainer.validation.labels.is_cuda
    whole = trainer.run(job(), StateFile(tmp_path / "whole", MARK))
    parts, _ = step_by_step(trainer, job(), StateFile(tmp_path / "parts", MARK))
    for ran in (whole, parts):
        assert ran.keep is not None
        total = sum(mask.numel() for mask in ran.keep.values())
        assert sum(int(mask.sum()) for mask in ran.keep.values()) == round(0.5 * total)
        assert not any(tensor.is_cuda for tensor in ran.state.values())
        assert ran.validation_accuracy > 0.6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_no_step_waits_for_the_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = Course._step, 0

    def watched(self: Course, *args: Any) -> Tensor:
        nonlocal steps
        steps += 1
        torch.cuda.set_sync_debug_mode("error" if steps > 1 else "default")
        try:
            return real(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Course, "_step", watched)
    trainer = trainer_of(small(), "cuda", compile="off")
    trainer.run(job(None, 2, start=None), StateFile(tmp_path / "dense", MARK))
    assert steps == 16
