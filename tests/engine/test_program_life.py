"""What a program does in time: regrowth, references, patience, its end, and refusals."""

from __future__ import annotations

import pytest
import torch
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

import regrow
from regrow import recipes
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.parts.schedule.cubic import Cubic


def test_zero_regrowth_leaves_the_function_unchanged() -> None:
    model, data = network(), batches(3)
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, two_stages("zero"), loss_fn=loss_fn, data=data)
    train(model, optimizer, data, handle)
    model.eval()
    before, kept = model(data[0][0]), sum(handle.masks.kept.values())
    handle.epoch_end()
    assert sum(handle.masks.kept.values()) > kept
    assert torch.equal(model(data[0][0]), before)


def test_dense_regrowth_returns_the_dense_weight() -> None:
    model, data = network(), batches(3)
    dense = copied(model)
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, two_stages("dense"), loss_fn=loss_fn, data=data)
    train(model, optimizer, data, handle)
    old, trained = dict(handle.masks), copied(model)
    handle.epoch_end()
    for name, keep in handle.masks.items():
        weight, back = model.get_parameter(name), keep & ~old[name]
        assert torch.equal(weight[back], dense[name][back])
        assert torch.equal(weight[~back], trained[name][~back])
    assert handle.events[-1]["regrown"] == round(0.4 * 572) - round(0.1 * 572)


def test_reference_from_outside_and_from_an_earlier_stage() -> None:
    data = batches(3)
    program = recipes.bidirectional_paper(
        0.8, 0.95, (1, 1), reference=0.5, regrow="reference", value="reference"
    )
    model = network()
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data)
    train(model, optimizer, data, handle)
    kept_as_reference = copied(model)
    handle.epoch_end()
    train(model, optimizer, data, handle)
    old = dict(handle.masks)
    handle.epoch_end()
    for name, keep in handle.masks.items():
        back = keep & ~old[name]
        assert kept_as_reference[name][back].all()
        assert torch.equal(model.get_parameter(name)[back], kept_as_reference[name][back])

    outside = Program(two_stages("reference", "reference").stages)
    with pytest.raises(regrow.RegrowError, match=r"reference=state_dict"):
        regrow.attach(network(), sgd(network()), outside)
    model = network()
    reference = copied(network(7))
    with pytest.raises(regrow.RegrowError, match=r"reference network is of another.*'6\.bias'"):
        regrow.attach(
            model, sgd(model), outside, reference={n: reference[n] for n in list(reference)[:-1]}
        )
    odd = {**reference, "4.weight": torch.zeros(8, 65)}
    with pytest.raises(regrow.RegrowError, match=r"4\.weight has shape \(8, 65\)"):
        regrow.attach(model, sgd(model), outside, reference=odd)
    handle = regrow.attach(model, sgd(model), outside, reference=reference)
    reference["4.weight"].fill_(77.0)  # the handle took a copy
    handle.epoch_end()
    assert model[4].weight.abs().max() < 1


def test_patience_restores_the_best_weights() -> None:
    model, data = network(), batches(3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    program = recipes.iterative(0.9, 20, 2, patience=2)
    handle = regrow.attach(model, optimizer, program)
    first = handle.sparsity
    best: dict[str, Tensor] = {}
    for accuracy in (0.5, 0.8, 0.7, 0.6):
        train(model, optimizer, data, handle)
        if accuracy == 0.8:
            best, masks = copied(model), dict(handle.masks)
        handle.epoch_end(val_accuracy=accuracy)
    assert handle.sparsity > first
    # The next cut was made on the best weights: all that is still alive has their values.
    for name, keep in handle.masks.items():
        assert not (keep & ~masks[name]).any()
        assert torch.equal(model.get_parameter(name), best[name] * keep)
    assert torch.equal(model[6].bias, best["6.bias"])
    assert torch.equal(model[1].running_mean, best["1.running_mean"])
    assert not any(optimizer.state.get(p) for p in model.parameters())
    for accuracy in (0.4, 0.3, 0.3):
        train(model, optimizer, data, handle)
        best = copied(model) if accuracy == 0.4 else best
        handle.epoch_end(val_accuracy=accuracy)
    assert same(best, copied(model))
    handle.finalize()
    assert handle.sparsity == pytest.approx(0.9, abs=1 / 572)
    with pytest.raises(regrow.RegrowError, match="val_accuracy"):
        regrow.attach(model, optimizer, program).epoch_end(accuracy=0.5)


def test_patience_measures_after_each_cut_where_it_can() -> None:
    model, data = network(), batches(3)
    optimizer = sgd(model)
    seen: list[int] = []

    def evaluate(net: nn.Module) -> float:
        seen.append(sum(int((net.get_parameter(n) != 0).sum()) for n in WEIGHTS))
        return 0.9

    program = recipes.iterative(0.9, 20, 2, patience=1)
    handle = regrow.attach(model, optimizer, program, evaluate=evaluate)
    cut = copied(model)
    train(model, optimizer, data, handle)
    handle.epoch_end(val_accuracy=0.1)  # worse than right after the cut
    for name, keep in handle.masks.items():
        assert torch.equal(model.get_parameter(name), cut[name] * keep)
    assert seen == [event["kept"] for event in handle.events]


def test_adagrad_restored_with_its_own_start() -> None:
    model, data = network(), batches(3)
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.2)
    handle = regrow.attach(model, optimizer, recipes.one_shot(0.9, 20, patience=1))
    train(model, optimizer, data, handle)
    handle.epoch_end(val_accuracy=0.5)
    assert (optimizer.state[model[6].bias]["sum"] > 0.2).any()
    handle.epoch_end(val_accuracy=0.5)
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        assert torch.equal(state["sum"], torch.full_like(parameter, 0.2))
        assert state["step"] == 0
    train(model, optimizer, data, handle)


def test_finalize_before_the_end_and_forgotten_epoch_end() -> None:
    model, data = network(), batches(3)
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, two_stages(), loss_fn=loss_fn, data=data)
    for _ in range(2):
        train(model, optimizer, data, handle)
    with pytest.raises(regrow.RegrowError, match=r"stage 1 of 2.* 0 calls of epoch_end and 6 opti"):
        handle.finalize()
    handle.epoch_end()
    with pytest.raises(regrow.RegrowError, match=r"stage 2 of 2 at sparsity 0\.5997"):
        handle.finalize()
    handle.epoch_end()
    handle.finalize()
    handle.epoch_end()  # harmless once done
    handle.detach()
    assert [event["epoch"] for event in handle.events] == [0, 1]


def test_a_stage_that_ends_before_its_schedule_is_not_passed_over() -> None:
    """Steps per epoch that differ from what was planned must not miss the target silently."""
    model, data = network(), batches(3)
    optimizer = sgd(model)
    plan = Plan(Cubic(0.9, Step.iterations(10), Step.iterations(0), every=Step.iterations(2)))
    handle = regrow.attach(model, optimizer, Program((Stage(plan, Step.epochs(2)),)))
    train(model, optimizer, data, handle)
    handle.epoch_end()
    train(model, optimizer, data, handle)
    with pytest.raises(regrow.RegrowError, match=r"lasted its 2ep.* on 10it and only 6it have"):
        handle.epoch_end()


def test_detach_lets_go() -> None:
    model, data = network(), batches(2)
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, recipes.one_shot(0.9, 5))
    train(model, optimizer, data, handle)
    handle.detach()
    assert_projected(model, handle.masks)
    train(model, optimizer, data)
    assert model[4].weight[~handle.masks["4.weight"]].any()
    handle.project(model)
    assert_projected(model, handle.masks)


def test_missing_loss_or_data_is_said_before_anything_is_written() -> None:
    model = network()
    before = copied(model)
    program = recipes.bidirectional_paper(0.5, 0.9, (1, 1))
    for given in ({}, {"loss_fn": loss_fn}, {"data": batches(1)}):
        with pytest.raises(regrow.RegrowError, match="pass loss_fn and data"):
            regrow.attach(model, sgd(model), program, **given)
    with pytest.raises(regrow.RegrowError, match="gave no batch"):
        regrow.attach(
            model,
            sgd(model),
            recipes.one_shot(0.5, 1, criterion="taylor"),
            loss_fn=loss_fn,
            data=[],
        )
    assert same(before, dict(model.state_dict()))


def test_prepare_tries_the_example_and_changes_nothing() -> None:
    model, program = network(), two_stages()
    before = copied(model)
    assert regrow.prepare(model, program, example=torch.zeros(1, 1, 4, 4)) is model
    assert same(before, copied(model))
    assert model.training
    with pytest.raises(regrow.RegrowError, match=r"\(1, 1, 5, 5\).* does not fit Sequential"):
        regrow.prepare(model, program, example=torch.zeros(1, 1, 5, 5))
    with pytest.raises(regrow.RegrowError, match="no convolution or linear weights"):
        regrow.prepare(nn.Sequential(nn.ReLU()), program)
