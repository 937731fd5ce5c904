"""An exchange within layers: against a plain reference, count by count, and state by state."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from math import ceil, cos, pi
from typing import Any

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
)
from event_example import (
    evidence_of,
    inventories,
    inventory_of,
    kept,
    masked,
    ones,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regrow
from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.core.step import Step
from regrow.engine.event import decide
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.parts.criteria.random import Random
from regrow.parts.patterns.block import Block
from regrow.parts.patterns.nm import NofM
from regrow.parts.regrowth import RULES
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.steady import Steady
from regrow.recipes import RECIPES, gradual, granet, granet_st, rigl, sparse_evolution

EP, IT = Step.epochs, Step.iterations
WAY = Steady(0.5, EP(9))
TOTAL = 572
NAMES = ("granet", "granet_st", "rigl", "set")


def plan(rule: str = "gradient", **options: Any) -> Plan:
    grow = Regrowth(RULES.build(rule), exchange=0.3, within="layer")
    return Plan(WAY, regrowth=grow, **options)


def reference(
    weights: dict[str, Tensor], grads: dict[str, Tensor], masks: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Drop by |w| and grow by |g|, layer by layer."""
    new = {}
    for name, mask in masks.items():
        flat = mask.flatten().clone()
        drop = ceil(share * int(flat.sum()))
        size = weights[name].abs().flatten().masked_fill(~flat, float("inf"))
        flat[size.argsort()[:drop]] = False
        gain = grads[name].abs().flatten().masked_fill(flat, -1.0)
        flat[gain.argsort(descending=True)[:drop]] = True
        new[name] = flat.view_as(mask)
    return new


def density_of(masks: dict[str, Tensor]) -> float:
    return sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


@settings(max_examples=60, deadline=None)
@given(inventories(), st.floats(0.01, 0.99), st.integers(0, 9), st.data())
def test_rigl_event_is_the_plain_reference(
    entries: Any, share: float, seed: int, data: st.DataObject
) -> None:
    masks = data.draw(masked(entries))
    evidence = evidence_of(entries, masks, seed)
    decision = decide(plan(), entries, masks, density_of(masks), evidence, share)
    weights, grads = (dict(evidence[Need(kind)]) for kind in ("weight", "gradient"))  # type: ignore[arg-type]
    assert same(dict(decision.keep), reference(weights, grads, masks, share))
    assert decision.delta is None


@settings(max_examples=60, deadline=None)
@given(
    inventories(),
    st.sampled_from(["gradient", "random", "saliency", "newton"]),
    st.floats(0.01, 0.99),
    st.floats(0.3, 1.0),
    st.data(),
)
def test_a_cut_moves_layers_and_the_exchange_does_not(
    entries: Any, rule: str, share: float, left: float, data: st.DataObject
) -> None:
    masks = data.draw(masked(entries))
    density = max(left * density_of(masks), len(entries) / entries.total)
    evidence = evidence_of(entries, masks)
    exchanged = decide(plan(rule), entries, masks, density, evidence, share)
    cut = decide(plan(rule), entries, masks, density, evidence)
    assert kept(exchanged) == round(density * entries.total)
    for name, mask in cut.keep.items():
        assert int(mask.sum()) == int(exchanged.keep[name].sum())


def test_a_full_layer_stays_as_it_is() -> None:
    entries = inventory_of((8, 12), (4, 4))
    masks = ones(entries)
    masks["l0.weight"][:4] = False
    evidence = evidence_of(entries, masks)
    decision = decide(plan(), entries, masks, density_of(masks), evidence, 0.5)
    assert bool(decision.keep["l1.weight"].all())
    assert not torch.equal(decision.keep["l0.weight"], masks["l0.weight"])


@pytest.mark.parametrize("pattern", [NofM(2, 4), Block(2, 2)], ids=["n_of_m", "block"])
def test_units_are_exchanged_within_the_pattern(pattern: Any) -> None:
    entries = inventory_of((8, 8), (4, 16))
    fresh = evidence_of(entries, ones(entries))
    start = decide(Plan(WAY, Random(), pattern=pattern), entries, ones(entries), 0.25, fresh)
    evidence = evidence_of(entries, dict(start.keep), 1)
    after = decide(plan(pattern=pattern), entries, start.keep, 0.25, evidence, 0.5).keep
    for name, mask in after.items():
        assert int(mask.sum()) == int(start.keep[name].sum())
        assert not torch.equal(mask, start.keep[name])
        pooled = pattern.pool(mask.float().masked_fill(~mask, -torch.inf))
        assert torch.equal(pattern.expand(pooled == 1, tuple(mask.shape)), mask)


def test_the_share_follows_its_cosine() -> None:
    way = Steady(0.9, EP(20), EP(2), EP(10))
    for most, least in ((0.5, 0.005), (0.3, 0.0), (0.3, 0.3)):
        grow = Regrowth(RULES.build("random"), exchange=most, exchange_end=least, within="layer")
        made = Plan(way, regrowth=grow)
        for t in range(21):
            wanted = least + (most - least) / 2 * (1 + cos(pi * t / 20))
            assert made.exchange_at(EP(t)) == pytest.approx(wanted, abs=1e-12)
        assert made.exchange_at(EP(20)) == least
        assert made.exchange_at(IT(3)) == 0


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_stays_keeps_value_and_state_and_what_is_new_starts_afresh(kind: str) -> None:
    model, data = network(), batches(3)
    optimizer = OPTIMIZERS[kind](model.parameters())
    handle = regrow.attach(
        model, optimizer, rigl(0.5, 4, exchange=0.9), loss_fn=loss_fn, data=data, batches=1
    )
    train(model, optimizer, data, handle)
    before, old = copied(model), dict(handle.masks)
    state = {n: copied_state(optimizer, model.get_parameter(n)) for n in WEIGHTS}
    handle.epoch_end()
    (start, event) = handle.events
    assert (start["kind"], event["kind"]) == ("prune", "exchange")
    returned = 0
    for name in WEIGHTS:
        weight, new = model.get_parameter(name), handle.masks[name]
        stay, fresh = new & old[name], new & ~old[name]
        size = before[name].abs()[old[name]].sort().values
        drop = ceil(0.9 * 0.5 * (1 + cos(pi / 3)) * int(old[name].sum()))
        # Among what stays are weights that were dropped and grew again at once.
        returned += int((before[name].abs()[stay] <= size[drop - 1]).sum())
        assert torch.equal(weight.detach()[stay], before[name][stay])
        assert not weight.detach()[~stay].any()
        assert state[name].keys() >= {"momentum_buffer" if kind == "sgd" else "exp_avg_sq"}
        for key, value in copied_state(optimizer, weight).items():
            assert torch.equal(value[stay], state[name][key][stay])
            assert not value[fresh].any()
    assert returned


def copied_state(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Tensor]:
    state = optimizer.state[weight]
    return {k: v.clone() for k, v in state.items() if isinstance(v, Tensor) and v.dim()}


def course(program: Program, epochs: int = 12, lr: float = 0.05) -> tuple[Any, nn.Module]:
    """The handle after all epochs and the network; each layer's count is compared on the way."""
    model, data = network(), batches(4)
    optimizer = sgd(model, lr)
    handle = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data, batches=1)
    for _ in range(epochs):
        train(model, optimizer, data, handle)
        handle.epoch_end()
    handle.finalize()
    return handle, model


def test_granet_follows_the_ramp_and_goes_on_at_the_target() -> None:
    handle, _ = course(granet(0.95, 12))
    by_epoch = {event["epoch"]: event for event in handle.events}
    assert set(range(1, 7)) < by_epoch.keys() <= set(range(1, 12))
    for epoch, event in by_epoch.items():
        density = 1 - 0.95 * (1 - max(0.0, 1 - epoch / 6) ** 3)
        assert abs(event["kept"] - density * TOTAL) <= 1
        if epoch > 6:
            assert event["kept"] == round(0.05 * TOTAL)
            assert event["kind"] == "exchange"
            for layer in event["layers"]:
                assert layer["pruned"] == layer["regrown"]
                assert layer["kept"] == layer["kept_before"]
    assert handle.explored == 1.0


def test_an_interval_that_does_not_divide_the_ramp_meets_the_target_all_the_same() -> None:
    handle, _ = course(granet(0.9, 12, ramp=7, every=4, end=10))
    found = {event["epoch"]: event["kept"] for event in handle.events}
    assert list(found) == [4, 7, 8, 10]
    assert found[7] == found[8] == found[10] == round(0.1 * TOTAL)


@pytest.mark.parametrize("make", [rigl, sparse_evolution])
def test_density_and_layers_are_constant(make: Any) -> None:
    handle, _ = course(make(0.8, 12))
    start, *events = handle.events
    layers = {layer["name"]: layer["kept"] for layer in start["layers"]}
    assert sum(layers.values()) == start["kept"] == round(0.2 * TOTAL)
    # RigL's share is zero at its last event, so nothing happens there.
    assert {event["epoch"] for event in events} == set(range(1, 9 if make is rigl else 10))
    for event in events:
        for layer in event["layers"]:
            assert layer["kept"] == layers[layer["name"]]
            share = 0.3 if make is sparse_evolution else 0.15 * (1 + cos(pi * event["epoch"] / 9))
            assert layer["pruned"] == layer["regrown"] <= ceil(share * layer["kept"])
    assert 0.2 < handle.explored < 1


@pytest.mark.parametrize("allocation", ["erk", "uniform"])
def test_a_sparse_start_has_the_counts_of_its_allocation(allocation: str) -> None:
    def begun(seed: int) -> Any:
        model = network()
        program = rigl(0.5, 4, allocation=allocation, seed=seed)
        handle = regrow.attach(model, sgd(model), program, loss_fn=loss_fn, data=batches(1))
        assert_projected(model, handle.masks)
        return handle

    handle, kept = begun(0), round(0.5 * TOTAL)
    assert handle.stage == 1
    shares = {"0.weight": 36, "4.weight": 512, "6.weight": 24}
    if allocation == "erk":  # The density is in proportion to the sum over the product of extents.
        shares = {"0.weight": 4 + 1 + 3 + 3, "4.weight": 64 + 8, "6.weight": 8 + 3}
    scale = kept / sum(shares.values())
    if allocation == "erk":  # The last layer is full, and the others share the rest.
        assert scale * shares["6.weight"] > 24
        scale = (kept - 24) / (shares["0.weight"] + shares["4.weight"])
        shares["6.weight"] = 24 / scale
    for name, count in handle.masks.kept.items():
        assert abs(count - scale * shares[name]) < 1
    assert sum(handle.masks.kept.values()) == kept
    assert handle.explored == pytest.approx(0.5, abs=1 / TOTAL)
    again = begun(1)
    assert again.masks.kept == handle.masks.kept
    assert again.masks.checksum() != handle.masks.checksum()


def test_without_exchange_granet_is_gradual_magnitude_pruning() -> None:
    still = granet(0.9, 12, exchange=0, exchange_end=0)
    one, first = course(still)
    other, second = course(gradual(0.9, 12, end=6, criterion="magnitude"))
    assert one.events == other.events
    assert same(copied(first), copied(second))


def test_what_was_explored_is_the_union_of_the_masks() -> None:
    model, data = network(), batches(3)
    optimizer = sgd(model)
    handle = regrow.attach(
        model, optimizer, sparse_evolution(0.8, 6), loss_fn=loss_fn, data=data, batches=1
    )
    lived = dict(handle.masks)
    found = [handle.explored]
    for _ in range(6):
        train(model, optimizer, data)
        handle.epoch_end()
        lived = {name: mask | handle.masks[name] for name, mask in lived.items()}
        found.append(handle.explored)
        assert handle.explored == sum(int(m.sum()) for m in lived.values()) / TOTAL
    assert found == sorted(found)
    assert found[0] < found[-2] == found[-1]  # the last epoch has no event


@pytest.mark.parametrize("name", NAMES)
def test_accumulation_under_autocast_in_ones_own_loop(name: str) -> None:
    def loss(net: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss_fn(net, batch)

    model, data = network(), batches(8)
    optimizer = sgd(model)
    options = {"ramp": "4it"} if "granet" in name else {}
    program = RECIPES[name].make(0.8, 3, every="2it", end="10it", **options)
    handle = regrow.attach(model, optimizer, program, loss_fn=loss, data=data, batches=1)
    for _ in range(3):
        for index, batch in enumerate(data):
            (loss(model, batch) / 2).backward()
            if index % 2:
                optimizer.step()
                optimizer.zero_grad()
                assert_projected(model, handle.masks)
        handle.epoch_end()
    handle.finalize()
    assert sum(handle.masks.kept.values()) == round(0.2 * TOTAL)
    assert {e["step"] for e in handle.events} - {0, 10} == {2, 4, 6, 8}
    assert name != "rigl" or handle.events[-1]["step"] == 8  # its cosine ends at nothing


@pytest.mark.parametrize("name", NAMES)
def test_programs_say_where_they_start(name: str) -> None:
    program = RECIPES[name].make()
    assert program.start == "initial"
    assert program.epochs == 60
    assert Program.from_json(program.to_json()) == program
    first = program.stages[0]
    assert (first.length == Step(0)) == (name != "granet")
    if name != "granet":
        assert first.plan.schedule == OneShot(0.5 if name == "granet_st" else 0.97)
        assert first.plan.criterion == Random()


def test_the_ramp_of_granet_st_starts_where_the_start_has_left_it() -> None:
    handle, _ = course(granet_st(0.9, 12))
    kept = [event["kept"] for event in handle.events]
    assert kept[0] == TOTAL // 2
    assert kept[1] == round((0.1 + 0.4 * (5 / 6) ** 3) * TOTAL)
    assert len(kept) > 7
    assert granet_st(0.3, 12).stages[0].plan.schedule.sparsity == 0.3
    assert set(kept[6:]) == {round(0.1 * TOTAL)}


def test_a_rising_target_may_be_exchanged_too() -> None:
    entries = inventory_of((8, 12), (4, 8))
    masks = {e.name: torch.zeros(e.shape, dtype=torch.bool) for e in entries}
    for mask in masks.values():
        mask[0] = True
    decision = decide(plan(), entries, masks, 0.5, evidence_of(entries, masks), 0.5)
    assert kept(decision) == 64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regrowth(RULES.build("random"), within="row"), "within='row' is neither"),  # type: ignore[arg-type]
        (lambda: granet(exchange=0.2, exchange_end=0.3), "exchange_end=0.3 is where"),
        (lambda: granet(exchange_end=-0.1), "between 0 and exchange=0.5"),
        (lambda: granet(regrow="reference"), "take another rule"),
        (lambda: granet(exchange=1.0), "exchange=1.0 is a fraction"),
        (lambda: granet(ramp=30, end=20), "got ramp=30ep, end=20ep"),
        (lambda: granet(every="100it"), "of one unit"),
        (lambda: granet(end=60), "lasts 60ep, but the last event"),
        (lambda: granet(pattern="unit"), "lets weights return one by one"),
        (lambda: rigl(pattern="unit"), "lets weights return one by one"),
        (lambda: granet_st(0.4, initial=0.5), "the ramp starts at 0.5, beyond 0.4"),
        (lambda: rigl(every=0), "every >= 1"),
        (lambda: rigl(epochs=1), "lasts 1ep, but the last event"),
        (lambda: sparse_evolution(97), "For 97 % write 0.97"),
        (lambda: Steady(0.9, EP(5), initial=0.5), "give a ramp too"),
        (
            lambda: Program((Stage(Plan(WAY), EP(0)), Stage(Plan(OneShot(0.6)), EP(1)))),
            "stage 1 of 2 lasts nothing",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RegrowError, match=re.escape(message)):
        make()


def test_a_stage_of_no_length_hands_over_at_once_wherever_it_stands() -> None:
    stages = (
        Stage(Plan(OneShot(0.3)), EP(1)),
        Stage(Plan(OneShot(0.5), Random()), EP(0)),
        Stage(Plan(OneShot(0.8)), EP(1)),
    )
    model, data = network(), batches(2)
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, Program(stages))
    train(model, optimizer, data, handle)
    handle.epoch_end()
    assert handle.stage == 2
    assert [(e["epoch"], e["kept"]) for e in handle.events] == [
        (0, round(0.7 * TOTAL)),
        (1, round(0.5 * TOTAL)),
        (1, round(0.2 * TOTAL)),
    ]
    train(model, optimizer, data, handle)
    handle.epoch_end()
    handle.finalize()
    with pytest.raises(RegrowError, match="needs a length of at least one"):
        Program((replace(stages[1]),))
