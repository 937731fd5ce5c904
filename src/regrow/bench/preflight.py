"""Whether a task's data, network and loss go together, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow.bench.data import Splits
from regrow.bench.tasks import Task, Training
from regrow.bench.user_code import calling
from regrow.core.errors import RegrowError
from regrow.core.rng import generator
from regrow.model.collect import streams

_PARTS = ("train", "validation", "test")
_FEW = 4  # samples of the batch that is tried


def check_task(
    task: Task, training: Training, splits: Splits, make: Callable[[], nn.Module]
) -> None:
    """Try one small batch through augmentation, network, loss and gradients.

    Args:
        task: of which the loss and the augmentation are.
        training: how it will be trained.
        splits: the task's data.
        make: makes its network with initial weights; called twice.

    Raises:
        RegrowError: the parts differ in form, hold values that are not finite or labels that are
            no classes; or the task's own code raises, or gives back something else than training
            needs.
    """
    _check_data(task, splits)
    with streams():
        model = _network(task, make)
        count = min(_FEW, training.batch_size, len(splits.train))
        images, labels = splits.train.images[:count], splits.train.labels[:count]
        augment = task.augment
        if augment is not None:
            given = _own(task, "augmentation", lambda: augment(images, generator("trial")))
            if not isinstance(given, Tensor) or given.shape != images.shape:
                _refuse(task, "augmentation", f"gave {_form(given)} for {_form(images)}")
            images = given
        model.train()
        outputs = _own(task, "network", lambda: model(images))
        loss = _loss(task, outputs, labels, splits)
        _own(task, "loss", loss.backward)


def _check_data(task: Task, splits: Splits) -> None:
    first = splits.train
    for name in _PARTS:
        part = getattr(splits, name)
        images, labels = part.images, part.labels
        if images.shape[1:] != first.images.shape[1:] or images.dtype != first.images.dtype:
            _refuse(task, f"{name} part", f"is {_form(images)}, training {_form(first.images)}")
        if images.is_floating_point() and not bool(torch.isfinite(images).all()):
            _refuse(task, f"{name} part", "has inputs that are NaN or infinite")
        if labels.dtype != torch.int64 or int(labels.min()) < 0:
            what = f"labels of {labels.dtype}, the least of them {labels.min().item():g}"
            _refuse(task, f"{name} part", f"has {what}; classes are int64 from 0 on")


def _network(task: Task, make: Callable[[], nn.Module]) -> nn.Module:
    one, two = (_own(task, "network's function", make) for _ in range(2))
    if not isinstance(one, nn.Module):
        _refuse(task, "network's function", f"gave a {type(one).__name__}, which is no nn.Module")
    if one is two:
        _refuse(task, "network's function", "gave the same network twice; make a new one each time")
    forms = [{n: tuple(t.shape) for n, t in each.state_dict().items()} for each in (one, two)]
    if forms[0] != forms[1]:
        _refuse(task, "network's function", "gave networks of different shapes")
    return one


def _loss(task: Task, outputs: Any, labels: Tensor, splits: Splits) -> Tensor:
    own = task.loss
    if own is None:
        fits = isinstance(outputs, Tensor) and outputs.is_floating_point()
        if not fits or outputs.ndim != 2 or len(outputs) != len(labels):
            what = f"gave {_form(outputs)} for {len(labels)} samples"
            _refuse(task, "network", f"{what}; scores of (samples, classes) are needed")
        most = max(int(getattr(splits, name).labels.max()) for name in _PARTS)
        if most >= outputs.shape[1]:
            _refuse(task, "network", f"has scores of {outputs.shape[1]} classes; a label is {most}")
        loss = cross_entropy(outputs, labels)
    else:
        loss = _own(task, "loss", lambda: own(outputs, labels))
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        _refuse(task, "loss", f"gave {_form(loss)}; one number is needed")
    if not bool(torch.isfinite(loss.detach()).all()):
        _refuse(task, "loss", f"is {loss.item():g} for the first samples and initial weights")
    if not loss.requires_grad:
        _refuse(task, "loss", "does not depend on a weight that can be trained")
    return loss


def _own(task: Task, what: str, call: Callable[[], Any]) -> Any:
    return calling(f"the {what} of task {task.name!r}", call)


def _refuse(task: Task, what: str, fault: str) -> NoReturn:
    raise RegrowError(f"the {what} of task {task.name!r} {fault}.")


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of {tuple(value.shape)}"
    return f"a {type(value).__name__}"
