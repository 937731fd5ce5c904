"""Weights that are trained beside those that are used: the loop of the authors, and ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from dead_zone_example import straight_through
from engine_small import WEIGHTS, batches, loss_fn, network, train
from torch import Tensor, nn
from torch.func import functional_call

import regrow
from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.parts.reparam.dead_zone import DeadZone
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.outcome import Outcome
from regrow.recipes import codeq

DATA = batches(6)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def double(seed: int) -> tuple[nn.Module, list[Any]]:
    return network(seed).double(), [(x.double(), y) for x, y in DATA]


@pytest.mark.parametrize("learn_bits", [False, True])
def test_it_trains_as_a_parametrised_network_does(learn_bits: bool) -> None:
    """Autograd through the quantiser, and an AdamW of three groups, step by step."""
    model, data = double(0)
    twin = copy.deepcopy(model)
    options = {"bits": 6, "learn_bits": learn_bits, "decay": 2.0, "lr": 0.05}
    if learn_bits:
        options["bits_decay"] = 1.0
    optimizer, other = sgd(model), sgd(twin)
    handle = regrow.attach(model, optimizer, codeq(2, **options))  # type: ignore[arg-type]
    learned = {
        name: [torch.tensor(3.0, requires_grad=True) for _ in range(1 + learn_bits)]
        for name in WEIGHTS
    }
    decays = (2.0, 1.0)
    beside = torch.optim.AdamW(
        {"params": [each[i] for each in learned.values()], "lr": 0.05, "weight_decay": decays[i]}
        for i in range(1 + learn_bits)
    )

    def effective() -> dict[str, Tensor]:
        parameters = dict(twin.named_parameters())
        return {
            name: straight_through(parameters[name], t[0], t[1] if learn_bits else None, 6)
            for name, t in learned.items()
        }

    class Quantised(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return functional_call(twin, effective(), (x,))

    for batch in data:
        loss = loss_fn(model, batch)
        expected = loss_fn(Quantised(), batch)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
        loss.backward()
        expected.backward()
        optimizer.step()
        other.step()
        beside.step()
        for each in (optimizer, other, beside):
            each.zero_grad()
        for name, values in effective().items():
            # The learned numbers are single precision on both sides.
            weight = dict(model.named_parameters())[name]
            torch.testing.assert_close(weight.detach(), values.detach(), rtol=1e-4, atol=1e-5)
    handle.epoch_end()
    told = handle.events[-1]["bits"]
    assert set(told) == set(WEIGHTS)
    assert all(2 <= bits <= 6 for bits in told.values())


def quantised(epochs: int = 4, **options: Any) -> tuple[nn.Module, Any, Any]:
    model = network(1)
    optimizer = sgd(model)
    options = {"decay": 4.0, "lr": 0.05, **options}
    return model, optimizer, regrow.attach(model, optimizer, codeq(epochs, **options))


def test_the_network_holds_what_it_uses_and_its_keys_stay() -> None:
    keys = list(network(1).state_dict())
    model, optimizer, handle = quantised()
    found = []
    for _ in range(4):
        train(model, optimizer, DATA)
        assert handle.sparsity == pytest.approx(regrow.inspect(model).sparsity)
        for name, weight in model.named_parameters():
            if name in WEIGHTS:
                assert len(weight.detach().abs().unique()) <= 8
                assert torch.equal(handle.masks[name], weight.detach() != 0)
        handle.epoch_end()
        found.append(handle.sparsity)
    assert list(model.state_dict()) == keys
    assert found[-1] > max(0.5, found[0])
    assert [event["sparsity"] for event in handle.events] == pytest.approx(found)
    assert [event["epoch"] for event in handle.events] == [1, 2, 3, 4]
    assert handle.events[-1]["bits"] == dict.fromkeys(WEIGHTS, 4)
    handle.finalize()


def test_after_its_end_the_masks_stay() -> None:
    model, optimizer, handle = quantised(1)
    train(model, optimizer, DATA)
    handle.epoch_end()
    masks = {name: handle.masks[name] for name in WEIGHTS}
    train(model, optimizer, DATA, handle)
    assert all(torch.equal(handle.masks[name], mask) for name, mask in masks.items())
    handle.finalize()


def test_more_decay_makes_more_zeros_and_none_makes_none() -> None:
    found = []
    for decay in (0.0, 1.0, 3.0, 6.0):
        model, optimizer, handle = quantised(5, decay=decay)
        for _ in range(5):
            train(model, optimizer, DATA)
            handle.epoch_end()
        found.append(handle.sparsity)
    assert found == sorted(found)
    assert found[0] < 0.15
    assert found[-1] > found[0] + 0.5


def test_excluded_layers_are_left_as_they_are() -> None:
    model, optimizer, handle = quantised(exclude=("6",))
    train(model, optimizer, DATA)
    assert len(model.get_parameter("6.weight").unique()) == 24
    assert bool(handle.masks["6.weight"].all())
    handle.epoch_end()
    assert set(handle.events[-1]["bits"]) == {"0.weight", "4.weight"}


def test_a_layer_without_gradient_keeps_its_width() -> None:
    model = network(1)
    model.get_parameter("6.weight").requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    handle = regrow.attach(model, optimizer, codeq(2, decay=6.0, lr=0.1))
    train(model, optimizer, DATA)
    assert bool((model.get_parameter("6.weight") != 0).all())
    assert handle.sparsity > 0.2


def accumulated(model: nn.Module, optimizer: Any) -> None:
    for x, y in DATA:
        for part in range(2):
            half = slice(part * 4, part * 4 + 4)
            (nn.functional.cross_entropy(model(x[half]), y[half]) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()


def scaled(model: nn.Module, optimizer: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for batch in DATA:
        scaler.scale(loss_fn(model, batch)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def compiled(model: nn.Module, optimizer: Any) -> None:
    train(torch.compile(model, backend="eager"), optimizer, DATA)


def plain(model: nn.Module, optimizer: Any) -> None:
    train(model, optimizer, DATA)


@pytest.mark.parametrize("loop", [accumulated, scaled, compiled])
def test_other_loops_make_the_same_network(loop: Callable[..., None]) -> None:
    found = []
    for each in (loop, plain):
        model, optimizer, _ = quantised()
        model.eval()  # batch norms would see halves of a batch
        for _ in range(2):
            each(model, optimizer)
        found.append(model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-4, atol=1e-5)


def test_a_step_that_overflows_teaches_nothing() -> None:
    model, optimizer, _ = quantised()
    train(model, optimizer, DATA[:2])
    before = {name: t.clone() for name, t in model.state_dict().items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(loss_fn(model, DATA[2]) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(before[n], t) for n, t in model.named_parameters())


def test_what_does_not_go_with_it_is_refused() -> None:
    model, optimizer, handle = quantised()
    with pytest.raises(RegrowError, match="closure would see another network"):
        optimizer.step(lambda: 0.0)
    with pytest.raises(RegrowError, match="not at its end"):
        handle.finalize()
    handle.detach()
    whole = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    with pytest.raises(RegrowError, match="start it without masks"):
        regrow.attach(model, optimizer, codeq(2), masks=whole)
    with pytest.raises(RegrowError, match=r"sparsity=0\.9: it is an outcome.* decay, the weight"):
        codeq(10, sparsity=0.9)
    with pytest.raises(RegrowError, match="'outcome' asks for no sparsity"):
        Plan(Outcome())
    with pytest.raises(RegrowError, match="'outcome' asks for no sparsity"):
        Plan(OneShot(0.5), reparam=DeadZone())
    with pytest.raises(RegrowError, match="nothing is cut; leave out reparam, or memory"):
        Plan(Outcome(), reparam=DeadZone(), memory=0.0)
    stage = codeq(2).stages[0]
    with pytest.raises(RegrowError, match="program of its own"):
        Program((stage, Stage(Plan(OneShot(0.5)), Step.epochs(1))))


def test_a_checkpoint_of_other_weights_is_refused() -> None:
    model, optimizer, handle = quantised()
    train(model, optimizer, DATA)
    saved = handle.state_dict()
    handle.detach()
    with torch.no_grad():
        model.get_parameter("4.weight")[0, 0] += 1
    with pytest.raises(RegrowError, match="does not hold what the checkpoint makes"):
        regrow.attach(model, sgd(model), codeq(4, decay=4.0, lr=0.05), resume=saved)
