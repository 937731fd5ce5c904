"""Gradients as evidence, against what PyTorch computes in training mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrow.model.collect import gradients

NORMS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(4),
    "without scale": lambda: nn.BatchNorm2d(4, affine=False),
    "without running statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}


def network(norm: nn.Module, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, 2)
    )
    if isinstance(getattr(norm, "running_mean", None), Tensor):
        norm.running_mean.fill_(0.3)  # type: ignore[operator, union-attr]
        norm.running_var.fill_(4.0)  # type: ignore[operator, union-attr]
    return model


def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)[:, 0].exp().mean()


def weights(model: nn.Sequential) -> dict[str, nn.Parameter]:
    return {"conv": model[0].weight, "linear": model[5].weight}  # type: ignore[dict-item]


def by_hand(model: nn.Sequential, batch: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss_fn(model, batch), list(weights(model).values())))


@pytest.mark.parametrize("name", [name for name in NORMS if name != "SyncBatchNorm"])
@pytest.mark.parametrize("training", [True, False])
def test_batch_statistics_are_those_of_training(name: str, training: bool) -> None:
    model = network(NORMS[name](), dropout=0.5).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batches = list(torch.randn(3, 8, 3, 6, 6, generator=torch.Generator().manual_seed(1)))
    found, _ = gradients(model, weights(model), loss_fn, batches, square=False, statistics="batch")
    assert all(module.training is training for module in model.modules())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)  # no norm has moved
    whole = network(NORMS[name]()).train()  # The same weights; nothing is dropped.
    expected = [by_hand(whole, batch) for batch in batches]
    for mean, each in zip(found.values(), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(mean, torch.stack(list(each)).mean(0))


def test_running_statistics_are_those_of_evaluation() -> None:
    model = network(NORMS["BatchNorm2d"]()).train()
    batch = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    found, _ = gradients(model, weights(model), loss_fn, [batch], square=False)
    torch.testing.assert_close(list(found.values()), by_hand(model.eval(), batch))
    other, _ = gradients(model, weights(model), loss_fn, [batch], square=False, statistics="batch")
    assert not torch.allclose(found["conv"], other["conv"])


def test_frozen_norms_keep_their_running_statistics() -> None:
    model = network(NORMS["BatchNorm2d"]()).train()
    model[1].requires_grad_(False)
    batch = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    found, _ = gradients(model, weights(model), loss_fn, [batch], square=False, statistics="batch")
    torch.testing.assert_close(list(found.values()), by_hand(model.eval(), batch))


def test_ranks_do_not_wait_for_each_other() -> None:
    """A synchronised norm reads its own rank's batches: ranks may have other numbers of them."""
    model = network(NORMS["SyncBatchNorm"]()).train()
    batch = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    found, _ = gradients(model, weights(model), loss_fn, [batch], square=False, statistics="batch")
    plain = network(NORMS["BatchNorm2d"]()).train()
    torch.testing.assert_close(list(found.values()), by_hand(plain, batch))


def test_a_loss_that_raises_leaves_the_norms_as_they_were() -> None:
    model = network(NORMS["BatchNorm2d"]()).train()
    norm: Any = model[1]
    mean = norm.running_mean

    def broken(net: nn.Module, batch: Tensor) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        gradients(model, weights(model), broken, [0], square=False, statistics="batch")
    assert norm.running_mean is mean
    assert norm.training
