"""Hg by double backward, against the Hessian written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.engine.gather import Source, gather
from regrow.model.collect import gradients, hessian_products
from regrow.model.inventory import inventory, weights_of


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)).double()


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(5, 3, generator=source, dtype=torch.float64),
            torch.randint(0, 2, (5,), generator=source),
        )
        for _ in range(count)
    ]


def explicit(model: nn.Module, names: list[str], data: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Hessian times gradient of the mean loss, over all the weights joined to one vector."""
    shapes = [model.get_parameter(name).shape for name in names]

    def mean_loss(joined: Tensor) -> Tensor:
        parts = joined.split([shape.numel() for shape in shapes])
        given = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        outputs = [functional_call(model, given, (x,)) for x, _ in data]
        losses = [
            nn.functional.cross_entropy(o, y) for o, (_, y) in zip(outputs, data, strict=True)
        ]
        return torch.stack(losses).mean()

    at = torch.cat([model.get_parameter(name).detach().flatten() for name in names])
    hessian = torch.autograd.functional.hessian(mean_loss, at)
    gradient = torch.autograd.functional.jacobian(mean_loss, at)
    return hessian @ gradient


def test_as_by_the_whole_hessian() -> None:
    model, data = network(), batches()
    entries = inventory(model)
    source = Source(loss_fn, data, None)
    need = Need("hessian_gradient")
    found = gather(frozenset({need}), model, entries, {}, source, (0,), "batch")
    names = [entry.name for entry in entries]
    joined = torch.cat([found[need][name].flatten() for name in names]).double()
    torch.testing.assert_close(joined, explicit(model, names, data), rtol=1e-5, atol=1e-8)
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_grasp_foretells_how_the_gradients_norm_changes() -> None:
    """To first order, removing w changes g'g / 2 by -w Hg."""
    model, data = network(), batches()
    weights = weights_of(model, inventory(model))
    mean, _ = gradients(model, weights, loss_fn, data, square=False)
    products = hessian_products(model, weights, loss_fn, data, mean)

    def norm() -> float:
        found, _ = gradients(model, weights, loss_fn, data, square=False)
        return float(sum(g.double().square().sum() for g in found.values())) / 2  # type: ignore[arg-type]

    before, step = norm(), 1e-4
    for name, weight in weights.items():
        for index in ((0, 0), (1, 2)):
            kept = float(weight.detach()[index])
            with torch.no_grad():
                weight[index] = (1 - step) * kept
            slope = (norm() - before) / step
            with torch.no_grad():
                weight[index] = kept
            assert slope == pytest.approx(-kept * float(products[name][index]), rel=2e-2, abs=1e-5)


def test_batch_statistics_and_frozen_weights() -> None:
    """Norms normalise by the batch, run on nothing, and frozen weights have products too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    model[0].weight.requires_grad_(False)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    weights, data = weights_of(model, inventory(model)), batches(1)
    mean, _ = gradients(model, weights, loss_fn, data, square=False, statistics="batch")
    found = hessian_products(model, weights, loss_fn, data, mean, statistics="batch")
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert not model[0].weight.requires_grad
    model[0].weight.requires_grad_(True)
    model.train()  # by the batch, as training does
    grads = torch.autograd.grad(loss_fn(model, data[0]), list(weights.values()), create_graph=True)
    along = sum((g * mean[n]).sum() for g, n in zip(grads, weights, strict=True))
    for got, wanted in zip(
        found.values(),
        torch.autograd.grad(along, list(weights.values())),  # type: ignore[arg-type]
        strict=True,
    ):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-8)


def test_a_loss_that_is_linear_in_the_weights_has_none() -> None:
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    weights = weights_of(model, inventory(model))
    data = [torch.randn(4, 3)]
    ones = {n: torch.ones_like(w) for n, w in weights.items()}
    found = hessian_products(model, weights, lambda m, x: m(x).sum(), data, ones)
    assert not found["0.weight"].any()
    with pytest.raises(RegrowError, match="does not depend on the weights"):
        hessian_products(model, weights, lambda m, x: nn.Linear(3, 1)(x).sum(), data, ones)
