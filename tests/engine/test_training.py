"""The user's own loop, in all its forms: masks hold, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_small import (
    WEIGHTS,
    assert_projected,
    batches,
    copied,
    loss_fn,
    network,
    same,
    sgd,
    train,
    two_stages,
)
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import regrow
from regrow import recipes
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.parts.schedule.cubic import Cubic


def test_gradient_accumulation_counts_steps() -> None:
    model = network()
    optimizer = sgd(model)
    plan = Plan(Cubic(0.9, Step.iterations(4), Step.iterations(0), every=Step.iterations(2)))
    handle = regrow.attach(model, optimizer, Program((Stage(plan, Step.iterations(5)),)))
    for index, batch in enumerate(batches(20)):
        loss_fn(model, batch).backward()
        if index % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
            assert_projected(model, handle.masks)
    assert [event["step"] for event in handle.events] == [2, 4]
    assert handle.done
    handle.finalize()


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_with_a_skipped_step(fused: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=fused)
    handle = regrow.attach(model, optimizer, recipes.one_shot(0.9, 1))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for index, batch in enumerate(batches(4)):
        before = copied(model)
        loss = loss_fn(model, batch) * (float("inf") if index == 2 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert_projected(model, handle.masks)
        assert same(before["6.weight"], model[6].weight.detach()) == (index == 2)
    assert scaler.get_scale() == 2.0**9
    handle.epoch_end()
    handle.finalize()


def test_bf16_autocast() -> None:
    model = network()
    optimizer, data = sgd(model), batches(3)

    def autocast_loss(net: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss_fn(net, batch)

    program = recipes.bidirectional_paper(0.6, 0.9, (1, 1), regrow="gradient")
    handle = regrow.attach(model, optimizer, program, loss_fn=autocast_loss, data=data)
    for _ in range(2):
        for batch in data:
            autocast_loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            assert_projected(model, handle.masks)
        handle.epoch_end()
    handle.finalize()
    assert regrow.inspect(model).kept <= round(0.4 * 572) == handle.events[-1]["kept"]


@pytest.mark.parametrize("rule", ["saliency", "gradient", "random"])
def test_bf16_weights(rule: str) -> None:
    model = network().to(torch.bfloat16)
    data = [(x.bfloat16(), y) for x, y in batches(3)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    program = recipes.bidirectional_paper(0.6, 0.9, (1, 1), regrow=rule, value="dense")
    handle = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data)
    for _ in range(2):
        train(model, optimizer, data, handle)
        handle.epoch_end()
    handle.finalize()
    assert handle.events[-1]["kept"] == round(0.4 * 572)
    assert all(model.get_parameter(n).dtype == torch.bfloat16 for n in WEIGHTS)


def test_channels_last_gives_the_same_masks() -> None:
    found = []
    for form in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 2), nn.Flatten())
        model = model.to(memory_format=form)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        data = [(torch.ones(2, 3, 4, 4).to(memory_format=form), torch.tensor([0, 1]))] * 2
        handle = regrow.attach(model, optimizer, two_stages(), loss_fn=loss_fn, data=data)
        first = handle.masks.checksum()
        train(model, optimizer, data, handle)
        handle.epoch_end()
        found.append((first, handle.masks.checksum()))
        assert model[0].weight.is_contiguous(memory_format=form)
    assert found[0] == found[1]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_model(backend: str) -> None:
    model = network()
    compiled = torch.compile(model, backend=backend)
    optimizer, data = sgd(model), batches(2)
    program = two_stages()
    assert regrow.prepare(compiled, program, example=data[0][0]) is compiled
    keys = list(model.state_dict())
    handle = regrow.attach(compiled, optimizer, program, loss_fn=loss_fn, data=data)
    assert list(handle.masks) == list(WEIGHTS)
    for _ in range(2):
        for batch in data:
            loss_fn(compiled, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            assert_projected(model, handle.masks)
        handle.epoch_end()
    handle.finalize()
    assert list(model.state_dict()) == keys
    assert handle.events[-1]["kept"] == round(0.4 * 572)
    handle.project(compiled)


def test_averaged_copies_are_projected() -> None:
    model, data = network(), batches(4)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    ema.update_parameters(model)  # the dense weights, which live on in the average
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, recipes.one_shot(0.9, 1))
    for batch in data:
        loss_fn(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update_parameters(model)
    assert ema.module[4].weight[~handle.masks["4.weight"]].any()
    handle.project(ema)
    assert_projected(ema.module, handle.masks)
    assert ema.module[4].weight[handle.masks["4.weight"]].all()
    with pytest.raises(regrow.RegrowError, match=r"unknown weight '0\.weight'"):
        handle.project(nn.Linear(2, 2))
    other = network()
    other[6] = nn.Linear(8, 4)
    with pytest.raises(regrow.RegrowError, match=r"6\.weight has shape \(4, 8\)"):
        handle.project(other)


class Tied(nn.Module):
    """An embedding-free autoencoder: one square weight used twice, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x + self.attention(x, x, x, need_weights=False)[0])


def square_loss(model: nn.Module, batch: Tensor) -> Tensor:
    return F.mse_loss(model(batch), batch)


def test_tied_weights_and_attention() -> None:
    torch.manual_seed(0)
    model, data = Tied(), list(torch.randn(4, 5, 3, 6))
    optimizer = sgd(model)
    program = recipes.bidirectional_paper(0.5, 0.8, (1, 1))
    handle = regrow.attach(model, optimizer, program, loss_fn=square_loss, data=data)
    assert handle.masks.total == {
        "first.weight": 36,
        "attention.in_proj_weight": 108,
        "attention.out_proj.weight": 36,
    }
    for _ in range(2):
        for batch in data:
            square_loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            assert_projected(model, handle.masks)
        handle.epoch_end()
    handle.finalize()
    assert model.second.weight is model.first.weight
    assert regrow.inspect(model, masks=handle.masks).kept == 90


def test_frozen_layers_are_cut_but_do_not_move() -> None:
    model, data = network(), batches(3)
    model[4].requires_grad_(False)
    dense = model[4].weight.clone()
    optimizer = sgd(model)
    program = recipes.bidirectional_paper(0.5, 0.9, (1, 1), value="dense")
    handle = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data)
    for _ in range(2):
        train(model, optimizer, data, handle)
        handle.epoch_end()
    keep = handle.masks["4.weight"]
    assert torch.equal(model[4].weight, dense * keep)
    assert not model[4].weight.requires_grad
    assert 0 < int(keep.sum()) < keep.numel()


def test_attach_leaves_everything_else_alone() -> None:
    model, data = network(), batches(3)
    loss_fn(model, data[0]).backward()
    model[1].eval()  # a mode of its own, which collecting must restore
    optimizer = sgd(model)
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    modes = [module.training for module in model.modules()]
    keys, classes = list(model.state_dict()), [type(m) for m in model.modules()]
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    parameters = [id(p) for p in model.parameters()]
    stream = torch.random.get_rng_state()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*map(torch.cat, zip(*data, strict=True))), 8, shuffle=True
    )
    program = recipes.one_shot(0.5, 1, criterion="saliency")
    handle = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=loader)
    assert torch.equal(stream, torch.random.get_rng_state())
    assert grads.keys() == {n for n, p in model.named_parameters() if p.grad is not None}
    assert all(torch.equal(p.grad, grads[n]) for n, p in model.named_parameters() if n in grads)
    assert [module.training for module in model.modules()] == modes
    assert (list(model.state_dict()), [type(m) for m in model.modules()]) == (keys, classes)
    assert same(buffers, dict(model.named_buffers()))
    assert [id(p) for p in model.parameters()] == parameters
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert handle.sparsity == pytest.approx(0.5)
    handle.detach()
    assert not optimizer._optimizer_step_post_hooks


def test_failing_evidence_restores_modes_and_random_streams() -> None:
    model = network()
    stream = torch.random.get_rng_state()

    def broken(net: nn.Module, batch: Any) -> Tensor:
        torch.rand(1)
        return loss_fn(net, batch) * float("nan")

    program = recipes.one_shot(0.5, 1, criterion="taylor")
    before = copied(model)
    with pytest.raises(regrow.RegrowError, match="returned nan") as caught:
        regrow.attach(model, sgd(model), program, loss_fn=broken, data=batches(1))
    assert caught.value  # the traceback is alive, and yet:
    assert torch.equal(stream, torch.random.get_rng_state())
    assert all(module.training for module in model.modules())
    assert same(before, dict(model.state_dict()))
