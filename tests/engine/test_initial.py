"""Pruning at initialisation: rounds of an event, and the recipes in one's own loop."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from engine_small import assert_projected, batches, loss_fn, network, same, sgd, train
from torch import nn

import regrow
from regrow import recipes
from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.plan import Plan, plan_of, plan_spec
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.parts.criteria import CRITERIA
from regrow.parts.criteria.synflow import SynFlow
from regrow.parts.patterns.nm import NofM
from regrow.parts.regrowth import RULES
from regrow.parts.schedule.one_shot import OneShot
from regrow.recipes import RECIPES

DATA = batches(3, seed=5)
X = DATA[0][0][:1]
TOTAL = 572
INITIAL = [row for row in RECIPES if row.make().start == "initial"]
ONCE = [row for row in INITIAL if row.make().stages[-1].plan.regrowth is None]


def deep() -> nn.Sequential:
    """A chain whose layers differ in width a hundredfold: those that are narrow are easily lost."""
    torch.manual_seed(0)
    widths = (60, 400, 400, 4, 400, 10)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def kept_freely(model: nn.Module, criterion: str, rounds: int, sparsity: float) -> list[int]:
    """Weights of each layer without any floor, by the largest scores of all layers."""
    report = regrow.prune(
        model, sparsity, criterion=criterion, rounds=rounds, example=torch.zeros(1, 60), floor=1
    )
    assert report.kept == round((1 - sparsity) * report.total)
    return [int((p != 0).sum()) for p in model.parameters()]


def test_rounds_keep_every_layer_alive_where_one_round_does_not() -> None:
    one, many = (kept_freely(deep(), "synflow", rounds, 0.99) for rounds in (1, 100))
    # The floor's single weight is all that one round leaves of some layer.
    assert min(one) == 1
    assert min(many) > 1
    assert sum(one) == sum(many)


def test_each_round_is_a_cut_of_what_the_last_one_left() -> None:
    """As if one had pruned by hand, round by round."""
    model, twin = network(), network()
    regrow.prune(model, 0.9, criterion="synflow", rounds=4, example=X)
    for j in (1, 2, 3, 4):
        regrow.prune(twin, 1 - 0.1 ** (j / 4), criterion="synflow", example=X)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_log_has_one_entry_of_all_rounds() -> None:
    model = network()
    dense = copy.deepcopy(model)
    pruning = regrow.attach(model, sgd(model), recipes.synflow(0.9, 2, rounds=7), example=X)
    (event,) = pruning.events
    assert event["kept"] == round(0.1 * TOTAL)
    assert event["pruned"] == TOTAL - event["kept"]
    assert event["kind"] == "prune"
    assert event["regrown"] == 0
    for layer in event["layers"]:
        assert layer["kept_before"] == layer["total"] == layer["kept"] + layer["pruned"]
    assert sum(layer["kept"] for layer in event["layers"]) == event["kept"]
    for name, mask in pruning.masks.items():
        assert torch.equal(model.get_parameter(name), dense.get_parameter(name) * mask)
    json.dumps(event)


def test_one_round_is_written_as_before_and_more_come_back() -> None:
    plain = Plan(OneShot(0.5), SynFlow())
    assert "rounds" not in plan_spec(plain)
    many = replace(plain, rounds=5)
    assert plan_spec(many) == {**plan_spec(plain), "rounds": 5}
    assert plan_of(plan_spec(many)) == many != plain
    program = Program((Stage(many, Step.epochs(2)),), start="initial")
    assert Program.from_json(program.to_json()) == program
    for wrong in (0, 2.5, True):
        with pytest.raises(RegrowError, match="whole number of at least 1"):
            replace(plain, rounds=wrong)
    with pytest.raises(RegrowError, match="leave out rounds"):
        Plan(OneShot(0.5), regrowth=Regrowth(RULES.build("random")), rounds=2)
    with pytest.raises(RegrowError, match="leave out rounds"):
        Plan(OneShot(0.5), memory=0.0, rounds=2)
    with pytest.raises(RegrowError, match="in one round, not 100"):
        recipes.synflow(criterion="norm", pattern="unit")


def test_a_first_round_that_the_pattern_cannot_keep_is_refused_at_once() -> None:
    program = Program((Stage(Plan(OneShot(0.9), pattern=NofM(2, 4), rounds=9), Step.epochs(1)),))
    model = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(RegrowError, match=r"more than the .* that can be kept"):
        regrow.prepare(model, program)
    with pytest.raises(RegrowError, match=r"more than the .* that can be kept"):
        regrow.prune(model, 0.9, pattern={"name": "n_of_m", "n": 2, "m": 4}, rounds=9)
    assert all(bool(p.all()) for p in model.parameters())


def test_an_event_that_fails_on_the_way_is_due_until_it_succeeds() -> None:
    calls = 0

    def fragile(model: nn.Module, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3 * 3 + 2:  # In the fourth round.
            raise KeyboardInterrupt
        return loss_fn(model, batch)

    model = network()
    plan = Plan(
        regrow.recipes.iterative(0.9, 2, 2).stages[0].plan.schedule, CRITERIA.build("taylor")
    )
    program = Program((Stage(replace(plan, rounds=4), Step.epochs(2)),))
    optimizer = sgd(model)
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=DATA)
    pruning._on.source.__dict__["loss_fn"] = fragile
    train(model, optimizer, DATA, pruning)
    with pytest.raises(KeyboardInterrupt):
        pruning.epoch_end()
    assert_projected(model, pruning.masks)
    train(model, optimizer, DATA, pruning)
    assert sum(pruning.masks.kept.values()) == round(0.1 * TOTAL)
    assert_projected(model, pruning.masks)


@pytest.mark.parametrize("row", ONCE, ids=lambda row: row.name)
def test_every_recipe_prunes_once_and_trains_the_rest(row: Any) -> None:
    model = network()
    dense = copy.deepcopy(model)
    optimizer = sgd(model)
    program = row.make(0.9, 3)
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=DATA, example=X)
    masks = dict(pruning.masks)
    assert sum(pruning.masks.kept.values()) == round(0.1 * TOTAL)
    for name, tensor in model.state_dict().items():
        expected = dense.state_dict()[name]
        assert torch.equal(tensor, expected * masks[name] if name in masks else expected), name
    for _ in range(3):
        train(model, optimizer, DATA, pruning)
        pruning.epoch_end()
    pruning.finalize()
    assert len(pruning.events) == 1
    assert same(masks, dict(pruning.masks))


@pytest.mark.parametrize("row", INITIAL, ids=lambda row: row.name)
def test_resumed_it_is_the_same_to_the_bit(row: Any) -> None:
    def course(stop: bool) -> list[Any]:
        model, program = network(), row.make(0.8, 2)
        optimizer = sgd(model)
        about: dict[str, Any] = {"loss_fn": loss_fn, "data": DATA, "example": X}
        pruning = regrow.attach(model, optimizer, program, **about)
        train(model, optimizer, DATA)
        pruning.epoch_end()
        if stop:
            buffer = io.BytesIO()
            torch.save([model.state_dict(), optimizer.state_dict(), pruning.state_dict()], buffer)
            buffer.seek(0)
            states = torch.load(buffer, weights_only=True)
            model = network(1)
            optimizer = sgd(model)
            model.load_state_dict(states[0])
            optimizer.load_state_dict(states[1])
            pruning = regrow.attach(model, optimizer, program, resume=states[2], **about)
        train(model, optimizer, DATA)
        pruning.epoch_end()
        pruning.finalize()
        return [model.state_dict(), list(pruning.events)]

    assert same(course(False), course(True))


def test_cops_tells_in_the_log_what_was_kept_of_each_score() -> None:
    model = network()
    program = recipes.cops(0.8, 2, controls=("synflow",), least=(0.95,))
    pruning = regrow.attach(model, sgd(model), program, loss_fn=loss_fn, data=DATA, example=X)
    (event,) = pruning.events
    shares = event["shares"]
    assert set(shares) == {"taylor", "synflow"}
    assert shares["synflow"] >= 0.95 - 1e-9
    assert 0 < shares["taylor"] < 1
    plain = network()
    snip = regrow.attach(plain, sgd(plain), recipes.snip(0.8, 2), loss_fn=loss_fn, data=DATA)
    assert "shares" not in snip.events[0]
    assert not same(dict(snip.masks), dict(pruning.masks))


@pytest.mark.parametrize("name", ["synflow", "cops"])
def test_without_an_example_it_is_refused_before_anything_is_cut(name: str) -> None:
    model = network()
    optimizer = sgd(model)
    program = RECIPES[name].make(0.9, 2)
    with pytest.raises(RegrowError, match="pass example="):
        regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=DATA)
    with pytest.raises(RegrowError, match="pass example="):
        regrow.prune(model, 0.9, criterion=name, loss_fn=loss_fn, data=DATA)
    assert all(bool(p.all()) for p in model.parameters() if p.dim() > 1)
    regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=DATA, example=X)


def test_random_rounds_differ_and_are_nested() -> None:
    model, once = network(), network()
    regrow.prune(model, 0.9, criterion="random", rounds=3)
    regrow.prune(once, 0.9, criterion="random")
    pairs = list(zip(model.parameters(), once.parameters(), strict=True))
    assert any(not torch.equal(a != 0, b != 0) for a, b in pairs)
