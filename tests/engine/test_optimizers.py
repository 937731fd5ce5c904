"""Every optimiser: removed weights stay zero, and their state is that of a fresh weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.optim as optim
from engine_small import WEIGHTS, assert_projected, batches, loss_fn, network, same, train
from torch import Tensor, nn

import regrow
from regrow import recipes

Build = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Build] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, weight_decay=1e-3),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "momentum_foreach": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, foreach=True),
    "momentum_fused": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adam_foreach": lambda p: optim.Adam(p, lr=0.01, foreach=True),
    "adam_fused": lambda p: optim.Adam(p, lr=0.01, fused=True),
    "adam_amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "adamw_amsgrad": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
    "adamw_fused": lambda p: optim.AdamW(p, lr=0.01, fused=True),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "radam": lambda p: optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
    "rmsprop_all": lambda p: optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.3),
    "adagrad_fused": lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.3, fused=True),
    "adadelta": lambda p: optim.Adadelta(p, lr=1.0),
    "rprop": lambda p: optim.Rprop(p, lr=0.01),
    "asgd": lambda p: optim.ASGD(p, lr=0.05),
}

# What a never-updated entry holds, where it is not zero.
FRESH = {("Adagrad", "sum"): 0.3, ("Rprop", "step_size"): 0.01, ("Adamax", "exp_inf"): 1e-8}


def states(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    """A copy of the state of the prunable weights by name."""
    named = dict(model.named_parameters())
    return {
        name: {
            key: value.clone() if isinstance(value, Tensor) else value
            for key, value in optimizer.state.get(named[name], {}).items()
        }
        for name in WEIGHTS
    }


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_state_after_every_event(kind: str) -> None:
    data = batches(4)
    model = network()
    optimizer = OPTIMIZERS[kind](model.parameters())
    train(model, optimizer, data)  # so that the first cut meets a warm optimiser
    program = recipes.bidirectional_paper(0.7, 0.9, (2, 1), cuts=2, rounds=1)
    before = states(optimizer, model)
    handle = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data)
    old = {n: torch.ones_like(m) for n, m in handle.masks.items()}
    for _ in range(3):
        _check_reset(optimizer, model, before, old, dict(handle.masks))
        train(model, optimizer, data, handle)
        before, old = states(optimizer, model), dict(handle.masks)
        handle.epoch_end()
    handle.finalize()
    assert [event["kind"] for event in handle.events] == ["prune", "prune", "regrow"]
    assert handle.events[-1]["kept"] == round(0.3 * 572)


def _check_reset(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    before: dict[str, dict[str, Any]],
    old: dict[str, Tensor],
    new: dict[str, Tensor],
) -> None:
    after = states(optimizer, model)
    seen = 0
    for name in WEIGHTS:
        changed = old[name] ^ new[name]
        assert before[name].keys() == after[name].keys()
        for key, value in after[name].items():
            earlier = before[name][key]
            if not isinstance(value, Tensor) or value.shape != changed.shape:
                assert same(value, earlier), key
                continue
            fresh = FRESH.get((type(optimizer).__name__, key), 0.0)
            assert torch.equal(value[changed], torch.full_like(value[changed], fresh)), key
            assert torch.equal(value[~changed], earlier[~changed]), key
            seen += 1
    # Plain SGD has nothing to reset; every other optimiser here has.
    assert seen or isinstance(optimizer, optim.SGD)


@pytest.mark.parametrize("kind", ["momentum", "adam", "adamax", "adamw_fused", "adagrad", "rprop"])
def test_fresh_state_is_that_of_an_entry_without_gradient(kind: str) -> None:
    """The oracle for FRESH: a dead input's weights start at zero and never see a gradient."""
    weight = nn.Parameter(torch.tensor([[1.0, 0.0]]))
    optimizer = OPTIMIZERS[kind]([weight])
    for _ in range(5):
        weight.grad = torch.tensor([[0.7, 0.0]])
        optimizer.step()
    for key, value in optimizer.state[weight].items():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            assert value[0, 1] == pytest.approx(FRESH.get((type(optimizer).__name__, key), 0.0))


def test_momentum_never_revives_a_weight() -> None:
    model, data = network(), batches(6)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.99, weight_decay=0.01)
    train(model, optimizer, data)
    handle = regrow.attach(model, optimizer, recipes.one_shot(0.95, 2))
    for _ in range(2):
        train(model, optimizer, data, handle)
        handle.epoch_end()
    handle.finalize()
    assert regrow.inspect(model).kept == round(0.05 * 572)


def test_equals_hand_written_masked_sgd() -> None:
    """Plain SGD: zeroing after each step by hand gives the same bits."""
    data = batches(5)
    model, oracle = network(), network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3)
    handle = regrow.attach(model, optimizer, recipes.one_shot(0.8, 3))
    masks = dict(handle.masks)
    named = dict(oracle.named_parameters())
    with torch.no_grad():
        for name, keep in masks.items():
            named[name][~keep] = 0
    for _ in range(3):
        train(model, optimizer, data)
        handle.epoch_end()
        for batch in data:
            loss_fn(oracle, batch).backward()
            with torch.no_grad():
                for name, p in named.items():
                    # Multiplying by 1 - lr * decay would round otherwise than SGD does.
                    p.add_(p.grad.add(p, alpha=1e-3), alpha=-0.1)
                    p.grad = None
                    if name in masks:
                        p[~masks[name]] = 0
    assert all(torch.equal(p, named[n]) for n, p in model.named_parameters())


def test_groups_with_options_of_their_own() -> None:
    model, data = network(), batches(3)
    optimizer = optim.SGD(
        [
            {"params": [model[0].weight], "momentum": 0.9},
            {"params": [model[4].weight], "lr": 0.5},
            {"params": [model[6].weight], "momentum": 0.5, "nesterov": True, "dampening": 0},
        ],
        lr=0.05,
    )
    train(model, optimizer, data)
    before = states(optimizer, model)
    handle = regrow.attach(model, optimizer, recipes.one_shot(0.8, 1))
    old = {n: torch.ones_like(m) for n, m in handle.masks.items()}
    _check_reset(optimizer, model, before, old, dict(handle.masks))
    assert before["0.weight"]["momentum_buffer"] is not None
    assert before["4.weight"].get("momentum_buffer") is None
    train(model, optimizer, data, handle)


def test_named_parameters_schedulers_and_single_weights() -> None:
    """Groups then hold more keys, and a step count looks like a state of a 1 x 1 weight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1), nn.Linear(1, 1), nn.Linear(1, 3))
    optimizer = optim.AdamW(model.named_parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=20)
    program = recipes.manual((0.5, 0.2), (0, 1), 2, regrow="random")
    handle = regrow.attach(model, optimizer, program)
    for _ in range(2):
        for batch in batches(3):
            loss_fn(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            assert_projected(model, handle.masks)
        handle.epoch_end()
    handle.finalize()
    assert optimizer.state[model[2].weight]["step"] == 6


class Factored(torch.optim.Optimizer):
    """Second moments kept as row and column means."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if p.ndim > 1:
                    state.setdefault("rows", torch.zeros(p.shape[0]))
                    state["rows"] += p.grad.flatten(1).square().mean(1)
                p.sub_(p.grad, alpha=group["lr"])


@pytest.mark.parametrize(
    ("build", "key"),
    [(Factored, "'rows'"), (optim.Adafactor, "'row_var'")],
    ids=["own", "adafactor"],
)
def test_state_of_another_shape_is_refused_at_once(build: Any, key: str) -> None:
    model = network()
    before = {n: p.clone() for n, p in model.state_dict().items()}
    with pytest.raises(regrow.RegrowError, match=rf"{build.__name__} keeps state {key}.*weight"):
        regrow.attach(model, build(model.parameters()), recipes.one_shot(0.5, 1))
    assert same(before, dict(model.state_dict()))


class LateFactor(optim.SGD):
    """Keeps an odd state for large weights only, which no small stand-in shows."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            if p.numel() > 500:
                self.state[p]["half"] = torch.zeros(p.shape[0])


def test_state_found_out_late_is_refused_before_anything_is_written() -> None:
    model, data = network(), batches(2)
    optimizer = LateFactor(model.parameters(), lr=0.01, momentum=0.9)
    handle = regrow.attach(model, optimizer, recipes.manual((0.5, 0.8), (0, 1), 2, regrow="random"))
    train(model, optimizer, data, handle)
    weights, state = dict(model.state_dict()), states(optimizer, model)
    weights = {n: t.clone() for n, t in weights.items()}
    with pytest.raises(regrow.RegrowError, match=r"'half'.*4\.weight"):
        handle.epoch_end()
    assert same(weights, dict(model.state_dict()))
    assert same(state, states(optimizer, model))


class Closed(optim.SGD):
    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()
        super().step()


def test_optimisers_that_cannot_be_followed_are_refused() -> None:
    model = network()
    with pytest.raises(regrow.RegrowError, match="LBFGS"):
        regrow.attach(model, optim.LBFGS(model.parameters()), recipes.one_shot(0.5, 1))
    with pytest.raises(regrow.RegrowError, match=r"Closed.*closure"):
        regrow.attach(model, Closed(model.parameters(), lr=0.1), recipes.one_shot(0.5, 1))
    head = optim.SGD(model[6].parameters(), lr=0.1)
    with pytest.raises(regrow.RegrowError, match=r"0\.weight is trainable but not in"):
        regrow.attach(model, head, recipes.one_shot(0.5, 1))


def test_excluded_and_frozen_layers_need_not_be_in_the_optimiser() -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = optim.SGD(model[4].parameters(), lr=0.1)
    handle = regrow.attach(model, optimizer, recipes.one_shot(0.5, 1, exclude=("6",)))
    train(model, optimizer, batches(2), handle)
    assert handle.masks.kept["6.weight"] == 24
    assert handle.masks.kept["0.weight"] < 36
