"""Tasks that cannot be trained are refused in a line, before anything is."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrow.bench import Splits, TensorPair
from regrow.bench.preflight import check_task
from regrow.bench.tasks import Task, Training
from regrow.core.errors import RegrowError

TRAINING = Training(batch_size=4)


def part(count: int = 8, seed: int = 0) -> TensorPair:
    drawn = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 6, generator=drawn)
    return TensorPair(images, torch.arange(count) % 3)


def splits(**changed: TensorPair) -> Splits:
    parts = {"train": part(), "validation": part(6, 1), "test": part(6, 2), **changed}
    return Splits(**parts, mean=(0.0,), std=(1.0,))


def task(make: Any = lambda _: nn.Linear(6, 3), **more: Any) -> Task:
    return Task("mine", lambda _: splits(), {"net": make}, TRAINING, **more)


def check(given: Task, data: Splits | None = None, training: Training = TRAINING) -> None:
    source = torch.Generator().manual_seed(0)
    check_task(given, training, data or splits(), lambda: given.models["net"](source))


class Gives(nn.Module):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.layer, self.what = nn.Linear(6, 3), what

    def forward(self, x: Tensor) -> Any:
        return self.what(self.layer(x))


def gives(what: Any) -> Task:
    return task(lambda _: Gives(what))


def raises(*_: Any) -> Any:
    raise KeyError("oops")


ONE = nn.Linear(6, 3)
FAULTS: dict[str, tuple[Task, str]] = {
    "function raises": (task(raises), "network's function of task 'mine' raised KeyError: 'oops'"),
    "gives nothing": (task(lambda _: None), "gave a NoneType, which is no nn.Module"),
    "one network": (task(lambda _: ONE), "gave the same network twice"),
    "network raises": (gives(raises), "the network of task 'mine' raised KeyError: 'oops' (test_"),
    "tuple": (gives(lambda y: (y, y)), "gave a tuple for 4 samples; scores of (samples, classes)"),
    "flat": (gives(lambda y: y[:, 0]), "gave a float32 tensor of (4,) for 4 samples"),
    "integers": (gives(lambda y: y.long()), "gave a int64 tensor of (4, 3)"),
    "few classes": (gives(lambda y: y[:, :2]), "has scores of 2 classes; a label is 2"),
    "nothing learns": (gives(lambda y: y.detach()), "does not depend on a weight"),
    "nan": (gives(lambda y: y * torch.nan), "loss of task 'mine' is nan"),
    "augmentation": (task(augment=raises), "augmentation of task 'mine' raised"),
    "augmented": (task(augment=lambda x, _: x[:, :2]), "gave a float32 tensor of (4, 2) for a"),
    "loss raises": (task(loss=raises), "the loss of task 'mine' raised KeyError"),
    "vector": (task(loss=lambda y, _: y.sum(1)), "gave a float32 tensor of (4,); one number"),
    "number": (task(loss=lambda y, _: 3.0), "gave a float; one number is needed"),
    "batch norm": (
        task(lambda _: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))),
        "raised ValueError: Expected more than 1 value per channel",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_go_together_is_told(name: str) -> None:
    given, words = FAULTS[name]
    training = replace(TRAINING, batch_size=1) if name == "batch norm" else TRAINING
    with pytest.raises(RegrowError, match=re.escape(words)):
        check(given, training=training)


def test_data_that_cannot_be_trained_on_is_told() -> None:
    labels = torch.arange(6) % 3
    wrong = {
        "another shape": (torch.randn(6, 7), labels, r"is a float32 tensor of \(6, 7\), training"),
        "another type": (torch.randn(6, 6).double(), labels, "is a float64 tensor"),
        "nan": (torch.full((6, 6), torch.nan), labels, "NaN or infinite"),
        "negative": (torch.randn(6, 6), labels - 1, "the least of them -1; classes are int64"),
        "kind": (torch.randn(6, 6), labels.float(), "labels of torch.float32"),
    }
    for images, given, words in wrong.values():
        for name in ("validation", "test"):
            with pytest.raises(RegrowError, match=f"the {name} part of task 'mine' .*{words}"):
                check(task(), splits(**{name: TensorPair(images, given)}))
    with pytest.raises(RegrowError, match="has scores of 3 classes; a label is 5"):
        check(task(), splits(test=TensorPair(torch.randn(6, 6), torch.arange(6))))


def test_a_sound_task_passes_and_no_stream_moves() -> None:
    def augment(images: Tensor, drawn: torch.Generator) -> Tensor:
        return images + torch.randn(images.shape, generator=drawn)

    before = torch.get_rng_state()
    check(task(lambda _: nn.Sequential(nn.Linear(6, 3), nn.Dropout()), augment=augment))
    check(task(loss=lambda y, labels: (y.sum(1) - labels).square().mean()))
    assert torch.equal(before, torch.get_rng_state())


def test_a_task_is_made_of_the_right_things() -> None:
    for changed, words in (
        ({"training": {"lr": 1}}, "training must be a regrow.bench.Training"),
        ({"augment": 3}, "augment must be a function"),
        ({"loss": "cross entropy"}, "loss must be a function"),
        ({"models": {"net": 3}}, "model 'net' is no name of a function"),
        ({"models": {3: nn.Identity}}, "model 3 is no name of a function"),
    ):
        with pytest.raises(RegrowError, match=words):
            Task(**{"name": "mine", "splits": splits, "models": {"net": nn.Identity}, **changed})
    with pytest.raises(RegrowError, match="must be tensors; got ndarray and Tensor"):
        TensorPair(torch.zeros(2, 2).numpy(), torch.zeros(2))  # type: ignore[arg-type]
