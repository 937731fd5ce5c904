"""Cuts with repair: what one event does to live weights, and what a trained network makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_small import batches, loss_fn, network, sgd, train
from torch import Tensor, nn

import regrow
from regrow import Program, recipes
from regrow.bench.data.digits import load_digits
from regrow.bench.models import digits_cnn
from regrow.core.errors import RegrowError
from regrow.core.evidence import InverseFisher, Need
from regrow.engine.gather import Source, gather
from regrow.engine.plan import Plan
from regrow.engine.regrowth import Regrowth
from regrow.model.inventory import inventory
from regrow.parts.criteria.woodfisher import WoodFisher
from regrow.parts.regrowth import RULES
from regrow.parts.repair.surgeon import Surgeon
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.one_shot import OneShot

DATA = batches(6, seed=3)
FISHER: dict[str, Any] = {"gradients": 6, "chunk": 16, "damping": 1e-3}


def prune(model: nn.Module, sparsity: float, **options: Any) -> None:
    criterion = {"name": "woodfisher", **FISHER}
    regrow.prune(
        model,
        sparsity,
        **{"criterion": criterion, "loss_fn": loss_fn, "data": DATA, **options},
    )


@pytest.mark.parametrize("joint", [False, True])
def test_a_cut_adds_the_repair_of_its_evidence(joint: bool) -> None:
    dense, moved = network(), network()
    prune(dense, 0.7)
    part = Surgeon(joint, **FISHER)
    prune(moved, 0.7, repair=part)
    start = network()
    entries = inventory(start)
    evidence = gather(part.needs, start, entries, {}, Source(loss_fn, DATA), (0, 0), "running")
    keep = {e.name: dense.get_parameter(e.name) != 0 for e in entries}
    before = {name: torch.ones_like(mask) for name, mask in keep.items()}
    delta = part.delta(evidence, before, keep)
    for name, mask in keep.items():
        expected = (start.get_parameter(name) + delta[name]).detach() * mask
        assert torch.equal(moved.get_parameter(name), expected)
        assert not torch.equal(moved.get_parameter(name), dense.get_parameter(name))


def test_without_scale_nothing_moves() -> None:
    plain, still = network(), network()
    prune(plain, 0.7)
    prune(still, 0.7, repair={"name": "surgeon", "scale": 0.0, **FISHER})
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), still.parameters(), strict=True)
    )


def test_what_was_removed_stays_removed() -> None:
    """A network that is sparse already: its zeros have no gradients, and do not come back."""
    model = network()
    regrow.prune(model, 0.5)
    gone = {e.name: model.get_parameter(e.name) == 0 for e in inventory(model)}
    prune(model, 0.7, repair={"name": "surgeon", **FISHER})
    assert not any(model.get_parameter(n).detach()[zero].any() for n, zero in gone.items())


def test_the_fisher_is_collected_anew_at_every_event_of_as_many_batches_as_it_asks_for() -> None:
    model = network()
    optimizer = sgd(model)
    reads = [0]

    class Counted(list[Any]):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                reads[0] += 1
                yield batch

    program = recipes.woodfisher(0.8, 4, every=1, end=2, gradients=5, chunk=16, damping=1e-3)
    data = Counted(DATA)
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data, batches=1)
    for event in range(1, 5):
        assert reads[0] == 5 * min(event, 3)
        train(model, optimizer, DATA, pruning)
        pruning.epoch_end()
    pruning.finalize()
    assert len(pruning.events) == 3
    assert pruning.sparsity == pytest.approx(0.8, abs=1e-3)


def test_survivors_keep_their_momentum() -> None:
    model = network()
    optimizer = sgd(model)
    program = recipes.woodfisher(0.5, 3, start=1, end=2, initial=0.4, gradients=5, chunk=16)
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=DATA)
    train(model, optimizer, DATA)
    before = optimizer.state[model[4].weight]["momentum_buffer"].clone()
    weight = model[4].weight.detach().clone()
    pruning.epoch_end()
    mask = pruning.masks["4.weight"]
    assert not torch.equal(model[4].weight.detach()[mask], weight[mask])
    after = optimizer.state[model[4].weight]["momentum_buffer"]
    assert torch.equal(after[mask], before[mask])
    assert not after[~mask].any()


def test_the_recipe_is_a_cubic_ramp_or_one_cut() -> None:
    ramp = recipes.woodfisher(0.9, 60).stages[0].plan
    assert isinstance(ramp.schedule, Cubic)
    assert (str(ramp.schedule.end), str(ramp.schedule.every)) == ("45ep", "5ep")
    assert ramp.schedule.initial == 0.05
    once = recipes.woodfisher(0.9, 60, end=0, update="joint", scale=0.5, damping=1e-4).stages[0]
    assert once.plan.schedule == OneShot(0.9)
    assert once.plan.criterion == WoodFisher(damping=1e-4)
    assert once.plan.repair == Surgeon(True, 0.5, damping=1e-4)  # type: ignore[union-attr]
    assert recipes.woodfisher(update="none").stages[0].plan.repair is None  # type: ignore[union-attr]
    named = recipes.woodfisher(criterion="woodfisher", gradients=7).stages[0].plan
    assert named.criterion == WoodFisher(7)
    by_magnitude = recipes.woodfisher(0.9, 60, criterion="magnitude")
    assert Program.from_json(by_magnitude.to_json()) == by_magnitude


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Plan(OneShot(0.5), repair=Surgeon(), regrowth=Regrowth(RULES.build("random"))),
            "for what is cut for good",
        ),
        (lambda: Plan(OneShot(0.5), repair=Surgeon(), memory=0.0), "for what is cut for good"),
        (lambda: Plan(OneShot(0.5), repair=Surgeon(), rewind=True), "for what is cut for good"),
        (lambda: Plan(OneShot(0.5), WoodFisher(), memory=0.0), "cannot compete by it"),
        (lambda: Plan(OneShot(0.5), WoodFisher(5), repair=Surgeon()), "different inverses"),
        (lambda: recipes.woodfisher(update="both"), "update='both' is none of"),  # type: ignore[arg-type]
        (lambda: recipes.woodfisher(pattern="unit"), "leave the pattern"),
        (lambda: recipes.woodfisher(start=3, end=0), "needs start < end"),
        (lambda: recipes.woodfisher(damping=0), "damping=0 must be above 0"),
        (lambda: prune(network(), 0.5, data=None), "pass loss_fn and data"),
        (lambda: prune(network(), 0.5, data=[]), "gave no batch"),
        (lambda: attach(memory_gib=1e-6), "more than memory_gib=1e-06"),
        (lambda: attach(data=None), "pass loss_fn and data"),
    ],
)
def test_errors_before_anything_is_written(make: Any, message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        make()


def attach(data: Any = DATA, **options: Any) -> None:
    model = network()
    program = recipes.woodfisher(0.5, 60, start=5, **options)
    regrow.attach(model, sgd(model), program, loss_fn=loss_fn, data=data)


def test_needs_of_equal_values_are_one() -> None:
    assert len({Need("inverse_fisher", how=InverseFisher(5)) for _ in range(2)}) == 1
    assert Need("weight") == ("weight", "current", None)


def trained(seed: int) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """digits_cnn after eight epochs, and its training data in batches of 4."""
    train_set = load_digits().train
    source = torch.Generator().manual_seed(seed)
    model = digits_cnn(generator=source)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        for part in torch.randperm(len(train_set), generator=source).split(64):
            loss_fn(model, (train_set.images[part], train_set.labels[part])).backward()
            optimizer.step()
            optimizer.zero_grad()
    order = torch.randperm(len(train_set), generator=source).split(4)
    return model.eval(), [(train_set.images[part], train_set.labels[part]) for part in order]


def test_a_trained_network_loses_least_by_woodfisher_with_repair() -> None:
    """At 90 % without retraining, three seeds: update over no update, and over magnitude."""
    test_set = load_digits().test
    losses = dict.fromkeys(("magnitude", "none", "single", "joint"), 0.0)
    right = dict(losses)
    fisher = {"gradients": 200, "chunk": 64}
    for seed in range(3):
        model, data = trained(seed)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for arm in losses:
            model.load_state_dict(state)
            repair = None if arm in ("none", "magnitude") else Surgeon(arm == "joint", **fisher)
            criterion = "magnitude" if arm == "magnitude" else WoodFisher(**fisher)
            regrow.prune(model, 0.9, criterion=criterion, repair=repair, loss_fn=loss_fn, data=data)
            with torch.no_grad():
                logits = model(test_set.images)
            losses[arm] += float(F.cross_entropy(logits, test_set.labels)) / 3
            right[arm] += float((logits.argmax(1) == test_set.labels).double().mean()) / 3
    assert losses["none"] > losses["single"], (losses, right)
    assert right["single"] > right["none"] > right["magnitude"], (losses, right)
    assert right["joint"] > right["none"], (losses, right)
