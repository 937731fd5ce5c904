"""Batch-norm statistics measured anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.core.errors import RegrowError


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def test_statistics_are_the_plain_average_over_batches() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(), nn.Conv2d(3, 1, 1))
    batches = [torch.randn(4, 2, 5, 5) * i for i in (1, 2, 3)]
    net.train()
    before = {name: p.clone() for name, p in net.named_parameters()}
    regrow.recalibrate(net, loss, batches)
    outputs = [net[0](x).transpose(0, 1).flatten(1) for x in batches]
    mean = torch.stack([x.mean(1) for x in outputs]).mean(0)
    variance = torch.stack([x.var(1) for x in outputs]).mean(0)
    torch.testing.assert_close(net[1].running_mean, mean)
    torch.testing.assert_close(net[1].running_var, variance)
    assert net[1].momentum == 0.1
    assert net.training
    assert net[2].training
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())


def test_a_network_without_batch_norms_is_refused() -> None:
    with pytest.raises(RegrowError, match="no batch norm"):
        regrow.recalibrate(nn.Linear(2, 2), loss, [torch.randn(1, 2)])
