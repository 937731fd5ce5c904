"""Networks for tests of lookahead, and its scores by loops over single weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.evidence import Evidence
from regrow.engine.gather import Source, gather
from regrow.engine.neighbours import neighbours_for
from regrow.engine.plan import Plan
from regrow.model.inventory import inventory
from regrow.parts.criteria.lookahead import Lookahead, distortion
from regrow.parts.schedule.one_shot import OneShot


def evidence(model: nn.Module, example: Any, criterion: Lookahead | None = None) -> Evidence:
    """What an event would read of a network."""
    entries = inventory(model)
    plan = Plan(OneShot(0.5), criterion or Lookahead())
    source = Source(neighbours=neighbours_for([plan], model, entries, example))
    return gather(plan.needs, model, entries, {}, source, (0, 0), "running")


def squares(model: nn.Module, example: Any, norms: bool = True, residual: Any = "sum") -> Any:
    """Squared distortions by weight name."""
    found = evidence(model, example, Lookahead(norms, residual))
    assert found.neighbours is not None
    weights = {name: w for each in found.tensors.values() for name, w in each.items()}
    return distortion(found.neighbours, weights, norms, residual)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and statistic at random; variances and scales away from 0."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=source))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return model.eval()


def scale(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> Tensor:
    assert norm.running_var is not None
    return norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()


def rows(weight: Tensor) -> Tensor:
    """The sum of squares of each output's weights."""
    return torch.stack([row.detach().double().square().sum() for row in weight])


def columns(weight: Tensor) -> Tensor:
    """The sum of squares of each input's weights."""
    every = range(weight.shape[1])
    return torch.stack([weight.detach()[:, k].double().square().sum() for k in every])


def ones(n: int) -> Tensor:
    """Factors where there is no neighbour."""
    return torch.ones(n, dtype=torch.float64)


def by_loop(weight: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """w^2 times the factors of its input and its output, weight by weight."""
    found = weight.detach().double().square()
    for j in range(weight.shape[0]):
        for k in range(weight.shape[1]):
            found[j, k] *= before[k] * after[j]
    return found


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
