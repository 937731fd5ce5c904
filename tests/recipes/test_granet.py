"""GraNet, GraNet-ST and RigL against a training loop of a few lines, weight by weight."""

from __future__ import annotations

from math import ceil, cos, pi

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.engine.program import Program
from regrow.recipes import granet, granet_st, rigl

STEPS, EVERY, SPARSITY = 16, 2, 0.9


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first, second, last = nn.Linear(12, 32), nn.Linear(32, 16), nn.Linear(16, 4)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def data() -> list[tuple[Tensor, Tensor]]:
    inputs = torch.randn(4, 16, 12, generator=torch.Generator().manual_seed(1))
    return [(batch, batch[:, :4].argmax(1)) for batch in inputs]


def reference(
    masks: list[Tensor], initial: float, ramp: int, end: int, most: float, least: float
) -> list[Tensor]:
    """The published loop: weights and momentum by hand."""
    model, batches = network(), data()
    weights = [p for p in model.parameters() if p.dim() == 2]
    momentum = {p: torch.zeros_like(p) for p in model.parameters()}
    total = sum(w.numel() for w in weights)
    keep = [mask.clone() for mask in masks]
    with torch.no_grad():
        for weight, mask in zip(weights, keep, strict=True):
            weight *= mask
    for step in range(1, STEPS + 1):
        model.zero_grad()
        loss_fn(model, batches[(step - 1) % len(batches)]).backward()
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                momentum[p].mul_(0.9).add_(p.grad)
                p.add_(momentum[p], alpha=-0.05)
            for weight, mask in zip(weights, keep, strict=True):
                weight *= mask
                momentum[weight] *= mask
        if step > end or (step % EVERY and step not in (ramp, end)):
            continue
        left = max(0.0, 1 - step / ramp) ** 3 if ramp else 0.0
        kept = round((1 - (SPARSITY + (initial - SPARSITY) * left)) * total)
        sizes = [w.detach().abs() for w in weights]
        left_over = [s.masked_fill(~m, -1).flatten() for s, m in zip(sizes, keep, strict=True)]
        chosen = torch.zeros(total, dtype=torch.bool)
        chosen[torch.cat(left_over).argsort(descending=True, stable=True)[:kept]] = True
        share = least + (most - least) / 2 * (1 + cos(pi * step / end))
        grads = torch.autograd.grad(loss_fn(model, batches[0]), weights)
        parts = chosen.split([w.numel() for w in weights])
        for index, (size, grad, part) in enumerate(zip(sizes, grads, parts, strict=True)):
            flat = part.clone()
            drop = ceil(share * int(flat.sum())) if share > 0 else 0
            flat[size.flatten().masked_fill(~flat, torch.inf).argsort()[:drop]] = False
            flat[grad.abs().flatten().masked_fill(flat, -1).argsort(descending=True)[:drop]] = True
            keep[index] = flat.view_as(size)
        with torch.no_grad():
            for weight, mask in zip(weights, keep, strict=True):
                weight *= mask
                momentum[weight] *= mask
    return [w.detach() for w in weights]


CASES = {
    "granet": (granet(SPARSITY, 4, ramp="8it", end="15it", every="2it"), 0.0, 8, 0.5, 0.005),
    "granet_st": (granet_st(SPARSITY, 4, ramp="7it", end="15it", every="2it"), 0.5, 7, 0.5, 0.005),
    "rigl": (rigl(SPARSITY, 4, end="15it", every="2it"), SPARSITY, 0, 0.3, 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_the_published_loop(name: str) -> None:
    program, initial, ramp, most, least = CASES[name]
    model, masks = trained(program)
    wanted = reference(masks, initial, ramp, 15, most, least)
    found = [p.detach() for p in model.parameters() if p.dim() == 2]
    assert sum(int((w != 0).sum()) for w in wanted) > 0.05 * sum(w.numel() for w in wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one != 0, other != 0)
        assert torch.allclose(one, other, rtol=0, atol=1e-6)


def trained(program: Program) -> tuple[nn.Module, list[Tensor]]:
    """The network after the program, and the masks before its first step."""
    model, batches = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    handle = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=batches, batches=1)
    masks = list(handle.masks.values())
    for _ in range(4):
        for batch in batches:
            loss_fn(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        handle.epoch_end()
    handle.finalize()
    return model, masks
