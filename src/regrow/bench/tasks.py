"""What is trained on what, and how: the command line's tasks, and the user's own."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regrow.bench import models
from regrow.bench.data import Splits, TensorPair, load
from regrow.bench.data.augment import random_crop, random_flip
from regrow.bench.user_code import calling, line_of, told
from regrow.core.errors import RegrowError
from regrow.core.table import Row, Table

Augment = Callable[[Tensor, torch.Generator], Tensor]
MakeModel = Callable[[torch.Generator], nn.Module]


_RANGES = {
    "lr": (0, math.inf),
    "fine_tune_lr": (0, math.inf),
    "momentum": (0, 1),
    "weight_decay": (0, math.inf),
    "label_smoothing": (0, 1),
    "distillation": (0, 1),
    "threads": (0, 1024),
}
_COUNTS = ("dense_epochs", "fine_tune_epochs", "batch_size", "evidence_batches", "rehearsal_steps")
_MOST = (1 << 31) - 1  # of any of these
_CHOICES = {"precision": ("auto", "fp32", "bf16"), "compile": ("auto", "on", "off")}


@dataclass(frozen=True)
class Training:
    """How networks of a task are trained: SGD with momentum, one-cycle learning rate.

    Attributes:
        dense_epochs: of the dense network, before any cut.
        fine_tune_epochs: after it, in all, unless the recipe is told otherwise.
        batch_size: samples per step, over all ranks.
        lr: the peak of the dense network's cycle.
        fine_tune_lr: the peak of each fine-tuning cycle.
        momentum, nesterov, weight_decay: of SGD; biases and norms are not decayed.
        label_smoothing: of the cross-entropy.
        precision: "fp32", "bf16" (autocast), or "auto": bf16 where the processor has it.
        channels_last: lay images and convolutions out with channels last.
        evidence_batches: how many training batches one collection of evidence reads.
        rehearsal_steps: of the optimiser in one trial of layer budgets, where they are learned.
        distillation: weight in [0, 1] of following the dense network in fine-tuning, against the
            task's own loss.
        temperature: that softens both networks' answers in distillation.
        compile: the forward and backward pass of training: "on" wherever a compiler is found,
            "off", or "auto": on CUDA devices only.
        threads: processor threads, 0 for all; results on a CPU depend on it in the last bits.
    """

    dense_epochs: int = 30
    fine_tune_epochs: int = 60
    batch_size: int = 128
    lr: float = 0.2
    fine_tune_lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    evidence_batches: int = 64
    rehearsal_steps: int = 20
    distillation: float = 0.0
    temperature: float = 4.0
    compile: Literal["auto", "on", "off"] = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if not 1 <= getattr(self, name) <= _MOST:
                raise RegrowError(
                    f"training.{name} is from 1 to {_MOST}; got {getattr(self, name)}."
                )
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise RegrowError(f"training.{name} is in [{low:g}, {high:g}]; got {value}.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise RegrowError(f"training.temperature is greater than 0; got {self.temperature}.")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise RegrowError(
                    f"training.{name} is one of {', '.join(map(repr, known))}; "
                    f"got {getattr(self, name)!r}."
                )


_FINE_TUNING = (
    "fine_tune_epochs",
    "fine_tune_lr",
    "evidence_batches",
    "rehearsal_steps",
    "distillation",
    "temperature",
)


def dense_training(training: Training) -> Training:
    """All of a training that the dense network depends on; the rest is set to its default.

    Two runs whose dense trainings are equal have the same dense network, other things being so.
    """
    default = Training()
    return replace(training, **{name: getattr(default, name) for name in _FINE_TUNING})


@dataclass(frozen=True)
class Task:
    """Data, networks and a way to train them.

    Attributes:
        name: what records call it.
        splits: called with the data directory (or None), gives the three parts.
        models: networks by name, the default first; each is called with a CPU generator that
            initial weights may be drawn from (PyTorch's own stream is seeded too).
        training: defaults.
        augment: changes a batch of training inputs, all randomness from the generator.
        loss: `loss(outputs, labels)`; None is cross-entropy with the training's smoothing.
    """

    name: str
    splits: Callable[[Path | None], Splits]
    models: dict[str, MakeModel]
    training: Training = field(default_factory=Training)
    augment: Augment | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.models, dict) or not self.models:
            raise RegrowError(
                f"task {self.name!r} needs models, a dict from names to functions of a generator; "
                f"got {self.models!r}."
            )
        for name, make in self.models.items():
            if not isinstance(name, str) or not callable(make):
                raise RegrowError(f"task {self.name!r}: model {name!r} is no name of a function.")
        if not isinstance(self.training, Training):
            raise RegrowError(
                f"task {self.name!r}: training must be a regrow.bench.Training; got "
                f"{self.training!r}."
            )
        for what, own in (("augment", self.augment), ("loss", self.loss)):
            if own is not None and not callable(own):
                raise RegrowError(f"task {self.name!r}: {what} must be a function; got {own!r}.")


def _crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    return random_flip(random_crop(images, 4, generator), generator)


def _networks(classes: int, channels: int) -> dict[str, MakeModel]:
    def make(build: Any, **options: Any) -> MakeModel:
        return lambda g: build(classes, in_channels=channels, generator=g, **options)

    nets = {"resnet20": make(models.resnet20), "resnet56": make(models.resnet56)}
    if channels == 3:
        nets["vgg16_bn"] = make(models.vgg16_bn)
        nets["vgg16_bn_quarter"] = make(models.vgg16_bn, width=0.25)
    return nets


def digits() -> Task:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, with a small CNN; needs no download."""
    training = Training(
        dense_epochs=40,
        fine_tune_epochs=80,
        batch_size=32,
        lr=0.1,
        fine_tune_lr=0.05,
        precision="fp32",
        channels_last=False,
        threads=1,  # The network is so small that more of them only wait for each other.
    )
    nets: dict[str, MakeModel] = {"digits_cnn": lambda g: models.digits_cnn(generator=g)}
    return Task("digits", partial(load, "digits"), nets, training)


def _images(name: str, classes: int, channels: int, augment: Augment) -> Task:
    training = Training(dense_epochs=48, fine_tune_epochs=30, label_smoothing=0.1, compile="on")
    return Task(name, partial(load, name), _networks(classes, channels), training, augment)


def cifar10() -> Task:
    """CIFAR-10's 60,000 colour images in 10 classes, with ResNet-20, ResNet-56 or VGG16."""
    return _images("cifar10", 10, 3, _crop_and_flip)


def cifar100() -> Task:
    """CIFAR-100's 60,000 colour images in 100 classes, with ResNet-20, ResNet-56 or VGG16."""
    return _images("cifar100", 100, 3, _crop_and_flip)


def fashion_mnist() -> Task:
    """Fashion-MNIST's 70,000 grey images in 10 classes, with ResNet-20 or ResNet-56."""
    return _images("fashion_mnist", 10, 1, _crop_and_flip)


def cifar10_small() -> Task:
    """A tenth of CIFAR-10, 500 training images of each class, with a small CNN or ResNet-20."""
    training = Training(
        dense_epochs=30, fine_tune_epochs=20, batch_size=64, lr=0.1, fine_tune_lr=0.05, threads=1
    )
    nets: dict[str, MakeModel] = {
        "small_cnn": lambda g: models.small_cnn(generator=g),
        "resnet20": lambda g: models.resnet20(10, generator=g),
    }
    return Task("cifar10_small", partial(load, "cifar10_small"), nets, training, _crop_and_flip)


def spoken_digits() -> Task:
    """3,000 recordings of spoken digits as log-mel features, with a CNN along time."""
    training = Training(
        dense_epochs=20,
        fine_tune_epochs=30,
        batch_size=32,
        lr=0.05,
        fine_tune_lr=0.02,
        precision="fp32",
        channels_last=False,
        threads=1,
    )
    nets: dict[str, MakeModel] = {"spoken_cnn": lambda g: models.spoken_cnn(generator=g)}
    return Task("spoken_digits", partial(load, "spoken_digits"), nets, training)


TASKS: Table[Task] = Table(
    "task",
    Row("digits", digits, "Alpaydin and Kaynak 1998, UCI; in scikit-learn"),
    Row("cifar10", cifar10, "Krizhevsky 2009"),
    Row("cifar100", cifar100, "Krizhevsky 2009"),
    Row("fashion_mnist", fashion_mnist, "Xiao et al. 2017"),
    Row("cifar10_small", cifar10_small, "Krizhevsky 2009"),
    Row("spoken_digits", spoken_digits, "Jackson et al. 2016"),
)


def find_task(spec: str) -> Task:
    """A task by name, or the user's own as "package.module:function".

    The function takes no arguments and returns a `Task`. Modules are looked for in the current
    directory too.

    Raises:
        RegrowError: no such task, module or function, its code raises, or it returns something
            else.
    """
    if ":" not in spec:
        return TASKS.build(spec)
    path, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(path)
    except (ImportError, SyntaxError, ValueError) as error:
        raise RegrowError(f"task {spec!r} cannot be found: {line_of(error)}. {_WHERE}") from error
    except (Exception, SystemExit) as error:
        raise RegrowError(f"module {path!r} of task {spec!r} raised {told(error)}.") from error
    try:
        make = getattr(module, name)
    except AttributeError as error:
        raise RegrowError(f"task {spec!r} cannot be found: {error}. {_WHERE}") from error
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError) as error:
        raise RegrowError(
            f"task {spec!r} must be a function without arguments that returns a "
            f"regrow.bench.Task: {error}."
        ) from error
    task = calling(f"task {spec!r}", make)
    if not isinstance(task, Task):
        raise RegrowError(
            f"task {spec!r} returned a {type(task).__name__}; it must return a regrow.bench.Task."
        )
    return task


_WHERE = (
    "Give a module on the Python path (or in this directory) and a function in it, as "
    "package.module:function."
)


def checked_splits(task: Task, data_dir: Path | None) -> Splits:
    """The task's data, found to be three parts with something in each.

    Raises:
        RegrowError: they are something else, or cannot be made.
    """
    splits = calling(f"the splits of task {task.name!r}", lambda: task.splits(data_dir))
    if not isinstance(splits, Splits):
        raise RegrowError(
            f"the splits of task {task.name!r} returned a {type(splits).__name__}; they must "
            "return a regrow.bench.Splits."
        )
    for name in ("train", "validation", "test"):
        part = getattr(splits, name)
        if not isinstance(part, TensorPair) or len(part) == 0:
            raise RegrowError(
                f"the {name} part of task {task.name!r} must be a regrow.bench.TensorPair with at "
                f"least one sample; got {type(part).__name__}."
            )
    return splits


def gathered(dataset: Any) -> TensorPair:
    """A map-style dataset of (input, label) pairs as two tensors in memory.

    Args:
        dataset: has a length and gives (tensor, int) at 0 ... n - 1.

    Raises:
        RegrowError: it is empty.
    """
    pairs = [dataset[index] for index in range(len(dataset))]
    if not pairs:
        raise RegrowError(f"{type(dataset).__name__} holds no sample; give one that does.")
    inputs = torch.stack([torch.as_tensor(pair[0]) for pair in pairs])
    return TensorPair(inputs, torch.tensor([int(pair[1]) for pair in pairs]))
