"""The bidirectional recipe: its defaults, and its course on a small network."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.parts.criteria.saliency import Saliency
from regrow.parts.regrowth.newton import Newton
from regrow.parts.schedule.rebound import Rebound
from regrow.recipes import bidirectional

TOTAL = 12 * 32 + 32 * 4  # weights of `network`


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def only_stage(program: Program) -> Stage:
    (stage,) = program.stages
    return stage


def way(program: Program) -> Rebound:
    schedule = only_stage(program).plan.schedule
    assert isinstance(schedule, Rebound)
    return schedule


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))


def data() -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(4, 16, 12, generator=source)
    return [(batch, batch[:, :4].argmax(1)) for batch in inputs]


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def course(program: Program) -> tuple[list[int], list[dict[str, Any]], nn.Module]:
    """Kept weights after every epoch from the start on, events, and the network at the end."""
    model, batches = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=batches)
    kept = [sum(pruning.masks.kept.values())]
    assert program.epochs is not None
    for _ in range(program.epochs):
        for batch in batches:
            loss_fn(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        pruning.epoch_end()
        kept.append(sum(pruning.masks.kept.values()))
    pruning.finalize()
    return kept, list(pruning.events), model


def test_what_it_is_by_default() -> None:
    program = bidirectional()
    stage = only_stage(program)
    assert stage.length == Step.epochs(60)
    assert way(program) == Rebound(0.97, 0.97, Step.epochs(30), Step.epochs(31), Step.epochs(1))
    plan = stage.plan
    assert plan.criterion == Saliency()
    assert plan.memory is None
    assert plan.regrowth is not None
    assert plan.regrowth.rule == Newton()
    assert plan.regrowth.exchange == 0.1
    assert plan.regrowth.value.values(None, None) is None  # type: ignore[arg-type]
    assert (plan.regrowth.layers, plan.regrowth.ssim_below) == (("*",), None)


@pytest.mark.parametrize(
    ("epochs", "peak", "end"),
    [(3, 1, 2), (4, 2, 3), (5, 2, 3), (7, 3, 5), (8, 4, 6), (81, 40, 60)],
)
def test_the_peak_is_at_a_half_and_an_overshoot_comes_back_by_three_quarters(
    epochs: int, peak: int, end: int
) -> None:
    found = way(bidirectional(0.9, epochs, overshoot=0.95))
    assert (found.peak, found.end) == (Step.epochs(peak), Step.epochs(end))
    found = way(bidirectional(0.9, epochs))
    assert (found.peak, found.end) == (Step.epochs(peak), Step.epochs(peak + 1))


@pytest.mark.parametrize("epochs", [1, 2])
def test_too_few_epochs_are_refused(epochs: int) -> None:
    """A ramp, an event at its end and an epoch to train the last masks take three."""
    with pytest.raises(RegrowError, match=rf"lasts {epochs}ep|epochs={epochs}\b"):
        bidirectional(0.9, epochs)


def test_peak_end_and_interval_are_ones_own() -> None:
    late = bidirectional(0.9, 20, overshoot=0.95, peak=15)
    assert way(late).end == Step.epochs(16)  # three quarters is 15
    assert way(bidirectional(0.9, 20, peak="40it", every="8it")).end == Step.iterations(41)
    assert way(bidirectional(0.9, 20, end=12)).peak == Step.epochs(10)
    found = way(bidirectional(0.9, 20, peak=4, end=17, every="3ep"))
    assert (found.peak, found.end, found.every) == tuple(map(Step.epochs, (4, 17, 3)))


def test_criterion_and_scope_are_ones_own() -> None:
    plan = only_stage(bidirectional(criterion="magnitude", floor=2, exclude=["2"])).plan
    assert type(plan.criterion).__name__ == "Magnitude"
    assert (plan.floor, plan.exclude) == (2, ("2",))


@pytest.mark.parametrize("epochs", [3, 4, 8])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_the_target_is_met_exactly_and_stays(epochs: int, sparsity: float) -> None:
    kept, events, model = course(bidirectional(sparsity, epochs))
    wanted = round((1 - sparsity) * TOTAL)
    peak = max(1, epochs // 2)
    assert kept[0] == TOTAL
    assert all(before > after for before, after in pairwise(kept[: peak + 1]))
    assert kept[peak:] == [wanted] * (epochs - peak + 1)
    zeros = sum(int((p == 0).sum()) for p in model.parameters() if p.dim() == 2)
    assert zeros >= TOTAL - wanted  # What returned at zero may not have moved yet.
    assert max(event["epoch"] for event in events) < epochs


def test_the_overshoot_is_reached_at_the_peak_and_left_again() -> None:
    kept, events, _ = course(bidirectional(0.7, 12, overshoot=0.9))
    assert kept[6] == min(kept) == round(0.1 * TOTAL)
    assert kept[7:10] == [round((0.1 + 0.2 * t / 3) * TOTAL) for t in (1, 2, 3)]
    assert kept[9:] == [round(0.3 * TOTAL)] * 4
    by_epoch = {event["epoch"]: event for event in events}
    for epoch in (7, 8, 9):
        event = by_epoch[epoch]
        assert event["regrown"] - event["pruned"] == kept[epoch] - kept[epoch - 1]
    assert max(by_epoch) == 9


def test_weights_are_exchanged_at_an_unchanged_target() -> None:
    _, events, _ = course(bidirectional(0.8, 16, end=12, exchange=0.3))
    living = round(0.2 * TOTAL)
    held = [event for event in events if event["epoch"] > 8]
    exchanged = [event for event in held if event["kind"] == "exchange"]
    assert exchanged
    for event in held:
        assert event["kept"] == living
        assert event["pruned"] == event["regrown"]
        # A cosine from 0.3 at the start to nothing at the last event, epoch 12.
        share = 0.15 * (1 + torch.cos(torch.tensor(torch.pi * event["epoch"] / 12)).item())
        assert event["pruned"] <= round(share * living)
    # Without an exchange nothing moves once the target is reached.
    still = course(bidirectional(0.8, 16, exchange=0.0))[1]
    assert {event["kind"] for event in still} == {"prune"}
    assert max(event["epoch"] for event in still) == 8


def test_events_fall_on_the_interval_the_peak_and_the_end() -> None:
    _, events, _ = course(bidirectional(0.8, 20, every=4, peak=9, end=17, exchange=0.3))
    found = {event["epoch"] for event in events if event["pruned"]}
    assert {4, 8, 9} <= found <= {4, 8, 9, 12, 16, 17}


def test_remembered_values_return_by_gain() -> None:
    program = bidirectional(0.8, 8, regrow="gain", value="remembered", memory=0, exchange=0.3)
    assert only_stage(program).plan.memory == 0
    kept, events, _ = course(program)
    assert kept[4:] == [round(0.2 * TOTAL)] * 5
    assert any(event["regrown"] for event in events)
    with pytest.raises(RegrowError, match="memory=0, which keeps them"):
        bidirectional(regrow="gain")


def test_random_regrowth_follows_the_seed() -> None:
    first, again, other = (
        course(bidirectional(0.8, 8, regrow="random", exchange=0.3, seed=seed))[2].state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
