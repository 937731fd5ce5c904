"""Small networks, batches and losses that the engine's tests share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.schedule.one_shot import OneShot

Batch = tuple[Tensor, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    """A convolution, a batch norm and two linear layers: 4 * 9 + 64 * 8 + 8 * 3 = 572 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


WEIGHTS = ("0.weight", "4.weight", "6.weight")


def batches(count: int, seed: int = 0, size: int = 8) -> list[Batch]:
    """Images 1 x 4 x 4 in three classes."""
    source = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 1, 4, 4, generator=source),
            torch.randint(0, 3, (size,), generator=source),
        )
        for _ in range(count)
    ]


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: list[Batch], handle: Any = None
) -> None:
    """One epoch; with a handle, removed weights are checked to be +0.0 after every step."""
    for batch in data:
        loss_fn(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        if handle is not None:
            assert_projected(model, handle.masks)


def assert_projected(model: nn.Module, masks: Any) -> None:
    """Removed weights are true zeros: no value, not even a negative zero."""
    for name, keep in masks.items():
        gone = dict(model.named_parameters())[name].detach()[~keep]
        assert not gone.any(), name
        assert not torch.signbit(gone).any(), name


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, for nested plain data and tensors."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def two_stages(value: str = "zero", rule: str = "magnitude") -> Program:
    grow = Regrowth(RULES.build(rule), VALUES.build(value))
    return Program(
        (
            Stage(Plan(OneShot(0.9)), Step.epochs(1)),
            Stage(Plan(OneShot(0.6), regrowth=grow), Step.epochs(1)),
        )
    )


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
