"""Learning rate, choice of the best epoch, and batches."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_task import configured, loss, network, small, trained
from torch import nn

import regrow.bench.deliver
from regrow.bench.job import learning_rate, settled
from regrow.bench.state import StateFile, identity
from regrow.bench.trainer import Trainer
from regrow.core.errors import RegrowError
from regrow.recipes import bidirectional_paper, gradual, iterative, one_shot


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regrow.bench.deliver, "_verify", lambda packed, weights: None)


def test_learning_rate_in_closed_form() -> None:
    peak = 0.4
    for cycles, start in (((10,), 0), ((3, 10), 3), ((3, 5, 10), 8)):
        found = [learning_rate(start + t, cycles, peak) for t in (0, 1, 2, 6, 9, 9.999999)]
        expected = [
            *(0.04, 0.22, 0.4),  # a tenth, half way up, the peak at a fifth
            *(0.2, 0.2 * (1 + math.cos(math.pi * 7 / 8)), 0.0),  # half way down a cosine, to zero
        ]
        assert found == pytest.approx(expected, abs=1e-9)
    assert learning_rate(10, (10,), peak) == learning_rate(25, (10, 5), peak) == 0


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.floats(0, 1, exclude_max=True),
    st.data(),
)
def test_every_cycle_has_the_same_shape(cycles: list[int], share: float, data: Any) -> None:
    index = data.draw(st.integers(0, len(cycles) - 1))
    time = sum(cycles[:index]) + share * cycles[index]
    if time < sum(cycles[: index + 1]):
        assert learning_rate(time, cycles, 1.0) == pytest.approx(
            learning_rate(100 * share, (100,), 1.0), abs=1e-6
        )
        assert 0 <= learning_rate(time, cycles, 0.3) <= 0.3


def test_when_a_program_has_settled() -> None:
    two = bidirectional_paper(0.7, 0.9, (3, 2))
    assert [settled(two, epoch, 8) for epoch in range(5)] == [False] * 3 + [True] * 2
    assert all(settled(one_shot(0.9, 3), epoch, 8) for epoch in range(3))
    # A ramp ends at epoch 6 of 8, however close to its target it comes before.
    assert [settled(gradual(0.9, 8), epoch, 8) for epoch in range(8)] == [False] * 6 + [True] * 2
    steps = gradual(0.9, 8, end=2, every=1)
    assert settled(steps, 2, 8)
    assert not settled(iterative(0.9, 8, 2, patience=2), 7, 8)


def test_the_final_sparsity_is_met_exactly_after_a_slow_ramp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The best validation epoch must not come from the ramp's end, a hair above the target.
    accuracies = iter([0.5, 0.5] + [0.9] * 38 + [0.1] * 2)
    real = Trainer.accuracy

    def accuracy(self: Trainer, model: nn.Module, data: Any) -> float:
        return real(self, model, data) if data is self._test else next(accuracies)

    task = small()
    monkeypatch.setattr(Trainer, "_test", task.splits(None).test, raising=False)
    monkeypatch.setattr(Trainer, "accuracy", accuracy)
    config = configured(
        monkeypatch, task, "gradual", ["epochs=40", "end=38", "sparsity=0.6"], controls=()
    )
    arm = trained(config, task, tmp_path / "run")["arms"]["gradual"]
    assert arm["kept"] == round(0.4 * arm["total"])
    assert arm["validation_accuracy"] == 0.1


@pytest.mark.parametrize(
    "curve", [[0.2, 0.9, 0.6, 0.3], [0.9, 0.2, 0.6, 0.6], [0.1, 0.2, 0.5, 0.6]]
)
def test_validation_decides_and_ties_go_to_the_later_epoch(
    curve: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, Any]] = []
    values = iter([0.5, 0.5, *curve])

    def accuracy(self: Trainer, model: nn.Module, data: Any) -> float:
        if len(data) == 45:
            states.append({n: t.clone() for n, t in model.state_dict().items()})
            return next(values)
        return 0.0

    monkeypatch.setattr(Trainer, "accuracy", accuracy)
    task = small()
    config = configured(
        monkeypatch,
        task,
        "bidirectional_paper",
        ["sparsity=0.5", "overshoot=0.8", "epochs=[2,2]"],
        controls=(),
    )
    record = trained(config, task, tmp_path / "run")
    arm = record["arms"]["bidirectional_paper"]
    # The first two epochs are at the overshoot and may not be chosen, however good they are.
    best = 3 if curve[3] >= curve[2] else 2
    assert arm["validation_accuracy"] == curve[best]
    written = load_file(tmp_path / "run" / "model.safetensors")
    chosen = states[2 + best]
    assert written.keys() == chosen.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in chosen.items())


class _Fabric:
    """Rank and number of ranks, without processes."""

    device = torch.device("cpu")

    def __init__(self, rank: int, ranks: int) -> None:
        self.global_rank, self.world_size = rank, ranks


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 16, 119, 120])
def test_ranks_share_every_batch(ranks: int, size: int) -> None:
    task = small()
    train = task.splits(None).train
    parts = []
    for rank in range(ranks):
        fabric: Any = _Fabric(rank, ranks)
        training = type(task.training)(batch_size=size)
        trainer = Trainer(fabric, task, training, lambda: nn.Identity(), train, train, 0, print)
        parts.append([trainer.share(batch) for batch in trainer.batches("order", 3)])
    joined = [torch.cat(shares) for shares in zip(*parts, strict=True)]
    every = torch.cat(joined)
    assert len(every.unique()) == len(every)
    left = 120 % size
    assert len(every) == (120 - left if 0 < left < 2 * ranks and size < 120 else 120)
    assert all(len(share) >= 1 for shares in parts for share in shares)


def test_a_loss_of_the_users_own_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = small(loss=loss, models={"mlp": network, "other": network})
    settings = ["sparsity=0.5", "overshoot=0.8"]
    config = configured(monkeypatch, task, "bidirectional_paper", settings, controls=())
    assert config.model == "mlp"
    record = trained(config, task, tmp_path / "run")
    assert record["arms"]["dense"]["test_accuracy"] > 0.6
    courses = json.loads((tmp_path / "run" / "history.json").read_text())
    assert max(e["train_loss"] for e in courses["arms"]["dense"]["epochs"]) < 1


def test_state_files_are_whole_and_their_own(tmp_path: Path) -> None:
    mine = StateFile(tmp_path / "a.done", identity({"seed": 1, "epochs": (3, 3)}))
    assert mine.read() is None
    state = {"weights": torch.arange(5.0), "history": [{"epoch": 1, "lr": 0.1}], "best": None}
    mine.write(state)
    again = StateFile(mine.path, identity({"epochs": [3, 3], "seed": 1})).read()
    assert again is not None
    assert torch.equal(again.pop("weights"), state.pop("weights"))
    assert again == state
    with pytest.raises(RegrowError, match=r"a\.done belongs to another run"):
        StateFile(mine.path, identity({"seed": 2, "epochs": (3, 3)})).read()
    whole = mine.path.read_bytes()
    step = max(1, len(whole) // 60)
    for position in range(0, len(whole), step):
        for damaged in (whole[:position], whole[:position] + b"\xff" + whole[position + 1 :]):
            if damaged != whole:
                mine.path.write_bytes(damaged)
                with pytest.raises(RegrowError, match=r"a\.done (is damaged|belongs)"):
                    mine.read()
    mine.delete()
    mine.delete()
    assert mine.read() is None
    (tmp_path / "folder").mkdir()
    with pytest.raises(RegrowError, match="folder cannot be read"):
        StateFile(tmp_path / "folder", b"").read()
