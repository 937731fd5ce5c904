"""Removed weights that are remembered: against a reference loop that holds the whole weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_small import (
    WEIGHTS,
    batches,
    loss_fn,
    network,
    same,
    sgd,
    train,
    two_stages,
)
from torch import Tensor, nn

import regrow
from regrow.core.budget import kept_count
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.parts.criteria.magnitude import Magnitude
from regrow.parts.regrowth.gain import Gain
from regrow.parts.regrowth.gradient import GradientMagnitude
from regrow.parts.regrowth.random import RandomRegrowth
from regrow.parts.regrowth.values import Remembered, Zero
from regrow.parts.schedule.manual import Manual
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.patience import Patience
from regrow.parts.schedule.rebound import Rebound

IT = Step.iterations
TOTAL = 572
WAY = Rebound(0.8, 0.9, IT(4), IT(8), IT(2))


def competing(memory: float, length: int = 12) -> Program:
    return Program((Stage(Plan(WAY, Magnitude(), memory=memory), IT(length)),))


def top(whole: dict[str, Tensor], density: float) -> dict[str, Tensor]:
    """Masks of the largest magnitudes over all layers; no two of these values tie."""
    flat = torch.cat([w.abs().flatten() for w in whole.values()])
    least = flat.sort(descending=True).values[kept_count(TOTAL, density) - 1]
    return {name: w.abs() >= least for name, w in whole.items()}


def reference(memory: float, kind: Any, steps: int) -> list[dict[str, Tensor]]:
    """The algorithm as published, on a second network that always holds the masked weights.

    Lin et al. 2020: the gradient is taken at the masked weights and applied to the whole ones.
    """
    model = network()
    parameters = dict(model.named_parameters())
    whole = {n: parameters[n].detach().clone() for n in WEIGHTS}
    masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in whole.items()}
    latent = {n: nn.Parameter(w.clone()) for n, w in whole.items()}
    rest = [p for n, p in parameters.items() if n not in WEIGHTS]
    optimizer = kind([*latent.values(), *rest])
    seen = []
    for step, batch in enumerate(batches(steps), 1):
        with torch.no_grad():
            for name in WEIGHTS:
                parameters[name].copy_(latent[name] * masks[name])
        model.zero_grad()
        loss_fn(model, batch).backward()
        before = {n: p.detach().clone() for n, p in latent.items()}
        for name in WEIGHTS:
            latent[name].grad = parameters[name].grad
        optimizer.step()
        if memory < 1:
            with torch.no_grad():
                for name, p in latent.items():
                    slow = before[name] + memory * (p - before[name])
                    p.copy_(torch.where(masks[name], p, slow))
        target = WAY.target(IT(step))
        if target is not None:
            masks = top({n: p.detach() for n, p in latent.items()}, target)
        seen.append({n: p.detach() * masks[n] for n, p in latent.items()})
    return seen


def plain(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=0.3)


def momentum(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=0.2, momentum=0.9, weight_decay=0.01, nesterov=True)


def adam(parameters: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=0.05)


@pytest.mark.parametrize(
    ("memory", "kind"),
    [(1, plain), (1, momentum), (1, adam), (0.25, plain), (0.25, adam), (0, plain)],
)
def test_the_same_as_the_published_algorithm(memory: float, kind: Any) -> None:
    model = network()
    optimizer = kind(model.parameters())
    handle = regrow.attach(model, optimizer, competing(memory))
    expected = reference(memory, kind, 12)
    returned = 0
    for batch, after in zip(batches(12), expected, strict=True):
        train(model, optimizer, [batch], handle)
        for name, values in after.items():
            torch.testing.assert_close(model.get_parameter(name).detach(), values)
    returned = sum(event["regrown"] for event in handle.events)
    assert [event["step"] for event in handle.events] == [2, 4, 6, 8]
    assert returned > kept_count(TOTAL, 0.2) - kept_count(TOTAL, 0.1)
    handle.finalize()
    assert handle.sparsity == 1 - kept_count(TOTAL, 0.2) / TOTAL


def test_without_memory_nothing_of_it_is_kept() -> None:
    model = network()
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, competing(1))
    train(model, optimizer, batches(7), handle)
    assert any(bool(v.any()) for v in handle._at.away.values())
    train(model, optimizer, batches(1), handle)
    assert handle._at.away == {}  # Its last event is over.


@pytest.mark.parametrize("memory", [0, 0.5, 1])
@pytest.mark.parametrize("stop", [1, 3, 5, 8, 9])
def test_resumed_is_the_same_to_the_bit(memory: float, stop: int) -> None:
    def start(saved: Any = None) -> tuple[nn.Module, Any, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if saved:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
        state = saved and saved["pruning"]
        return model, optimizer, regrow.attach(model, optimizer, competing(memory), resume=state)

    data = batches(12)
    model, optimizer, handle = start()
    train(model, optimizer, data, handle)
    partial, partial_optimizer, partial_handle = start()
    train(partial, partial_optimizer, data[:stop], partial_handle)
    saved = {
        "model": partial.state_dict(),
        "optimizer": partial_optimizer.state_dict(),
        "pruning": partial_handle.state_dict(),
    }
    resumed, resumed_optimizer, resumed_handle = start(saved)
    train(resumed, resumed_optimizer, data[stop:], resumed_handle)
    assert same(model.state_dict(), resumed.state_dict())
    assert handle.events == resumed_handle.events


def test_a_checkpoint_of_another_memory_is_refused() -> None:
    model = network()
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, competing(0))
    train(model, optimizer, batches(3), handle)
    state = handle.state_dict()
    state["progress"]["away"]["0.weight"] = torch.zeros(1)
    handle.detach()
    with pytest.raises(RegrowError, match=r"remembers values of 0.weight"):
        regrow.attach(model, optimizer, competing(0), resume=state)


def test_a_closure_would_see_another_network() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, optimizer, competing(1))
    train(model, optimizer, batches(2))
    with pytest.raises(RegrowError, match="call step\\(\\) without one"):
        optimizer.step(lambda: loss_fn(model, batches(1)[0]).detach())


def test_memory_is_a_speed() -> None:
    with pytest.raises(RegrowError, match="reads remembered weights"):
        Plan(WAY, regrowth=Regrowth(RandomRegrowth(), Remembered()))
    with pytest.raises(RegrowError, match=r"memory=1\.5"):
        Plan(WAY, memory=1.5)
    program = competing(1)
    assert Program.from_json(program.to_json()) == program


def test_gain_brings_back_what_lowers_the_loss_most() -> None:
    """Against putting each removed weight back by hand, a little, and measuring the loss."""
    grow = Regrowth(Gain(), Remembered())
    way = Manual((0.9, 0.85), (IT(1), IT(3)))
    program = Program((Stage(Plan(way, Magnitude(), regrowth=grow, memory=0), IT(4)),))
    model = network().double().train()
    data = [(x.double(), y) for x, y in batches(3, seed=7)]
    start = {n: model.get_parameter(n).detach().clone() for n in WEIGHTS}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # The weights stand still.
    handle = regrow.attach(model, optimizer, program, loss_fn=loss_fn, data=data)
    train(model, optimizer, [(x.double(), y) for x, y in batches(2)], handle)
    masks = {n: m.clone() for n, m in handle.masks.items()}
    base = sum(float(loss_fn(model, each).detach()) for each in data)
    gains = {}
    for name in WEIGHTS:
        weight = model.get_parameter(name).detach().view(-1)
        for index in (~masks[name]).flatten().nonzero().flatten().tolist():
            weight[index] = 1e-5 * start[name].flatten()[index]
            gains[name, index] = base - sum(float(loss_fn(model, d).detach()) for d in data)
            weight[index] = 0.0
    train(model, optimizer, [(x.double(), y) for x, y in batches(1)], handle)
    back = {n: handle.masks[n] & ~masks[n] for n in WEIGHTS}
    expected = sorted(gains, key=lambda at: -gains[at])[: kept_count(TOTAL, 0.15) - 57]
    found = {(n, i) for n in WEIGHTS for i in back[n].flatten().nonzero().flatten().tolist()}
    assert found == set(expected)
    for name in WEIGHTS:
        after = model.get_parameter(name).detach()
        assert torch.equal(after[back[name]], start[name][back[name]])


def exchanging(fraction: float) -> Program:
    grow = Regrowth(GradientMagnitude(), exchange=fraction)
    hold = Rebound(0.9, 0.9, IT(2), IT(10), IT(2))
    return Program((Stage(Plan(hold, Magnitude(), regrowth=grow), IT(12)),))


def test_an_exchange_cuts_the_smallest_and_grows_the_steepest() -> None:
    model = network()
    optimizer = plain(model.parameters())
    data = batches(4, seed=7)
    handle = regrow.attach(model, optimizer, exchanging(0.4), loss_fn=loss_fn, data=data)
    living = kept_count(TOTAL, 0.1)
    for step, batch in enumerate(batches(10), 1):
        masks = {n: m.clone() for n, m in handle.masks.items()}
        # The same step on a twin gives the weights that the event saw.
        twin = network()
        twin.load_state_dict(model.state_dict())
        other = plain(twin.parameters())
        train(twin, other, [batch])
        with torch.no_grad():
            for name in WEIGHTS:
                twin.get_parameter(name).mul_(masks[name])
        train(model, optimizer, [batch], handle)
        if step not in (4, 6, 8):
            continue
        share = 0.4 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 10)).item())
        down = living - round(share * living)
        kept = top({n: twin.get_parameter(n).detach() for n in WEIGHTS}, down / TOTAL)
        twin.zero_grad()
        twin.train()  # Gradients are read under batch statistics.
        for each in data:
            (loss_fn(twin, each) / len(data)).backward()
        gradients = {n: twin.get_parameter(n).grad for n in WEIGHTS}
        scores = {n: g.abs().masked_fill(kept[n], torch.inf) for n, g in gradients.items()
                  if g is not None}  # fmt: skip
        flat = torch.cat([s.flatten() for s in scores.values()])
        least = flat.sort(descending=True).values[living - 1]
        for name, score in scores.items():
            assert torch.equal(handle.masks[name], score >= least), (step, name)
            back = handle.masks[name] & ~masks[name]
            assert not model.get_parameter(name).detach()[back].any()
    last = handle.events[-1]
    assert last["step"] == 8, "at the schedule's last event nothing is left to exchange"


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_exchange_is_a_fraction(fraction: float) -> None:
    with pytest.raises(RegrowError, match="exchange"):
        Regrowth(RandomRegrowth(), exchange=fraction)


class Trying:
    """An allocation that tries two budgets and takes the better one."""

    from regrow.core.evidence import Need

    needs = frozenset({Need("trial")})

    def __init__(self) -> None:
        self.rewards: list[float] = []

    def counts(self, weights: Any, budget: Any, pooled: Any, evidence: Evidence) -> dict[str, int]:
        first, last = dict(budget.lower), dict(budget.lower)
        for counts, order in ((first, WEIGHTS), (last, WEIGHTS[::-1])):
            room = budget.total - sum(counts.values())
            for name in order:
                took = min(room, budget.upper[name] - counts[name])
                counts[name] += took
                room -= took
        if evidence.trial is None:
            return first
        self.rewards = [evidence.trial(first), evidence.trial(last)]
        return first if self.rewards[0] >= self.rewards[1] else last


@pytest.mark.parametrize("memory", [None, 0.5])
def test_trials_leave_no_trace(memory: float | None) -> None:
    """Against a rehearsal that does nothing but give the same scores."""

    def run(busy: bool) -> tuple[Any, Trying, list[int]]:
        torch.manual_seed(3)
        model = network()
        optimizer = momentum(model.parameters())
        trying, scores = Trying(), iter([0.2, 0.5])
        value = Zero() if memory is None else Remembered()
        grow = Regrowth(RandomRegrowth(), value, allocation=trying)
        stages = (
            Stage(Plan(OneShot(0.9), memory=memory), Step(1)),
            Stage(Plan(OneShot(0.6), regrowth=grow, memory=memory), Step(1)),
        )
        kept: list[int] = []

        def tried(live: nn.Module) -> float:
            kept.append(sum(int(m.sum()) for m in handle.masks.values()))
            # What lives is in the network, else a step would count it twice.
            assert not any(v[handle.masks[n]].any() for n, v in handle._at.away.items())
            if busy:
                train(live, optimizer, batches(3, seed=5), handle)
                live.eval()
                torch.rand(4)
            return next(scores)

        handle = regrow.attach(
            model, optimizer, Program(stages), loss_fn=loss_fn, data=batches(2), rehearse=tried
        )
        for _ in range(2):
            train(model, optimizer, batches(4), handle)
            handle.epoch_end()
        handle.finalize()
        assert model.training
        return (model.state_dict(), optimizer.state_dict(), torch.rand(1)), trying, kept

    state, trying, kept = run(busy=True)
    assert trying.rewards == [0.2, 0.5]
    assert kept == [kept_count(TOTAL, 0.4)] * 2  # The trial's masks were in force.
    idle, _, _ = run(busy=False)
    assert same(state, idle)


def test_learning_by_trial_needs_a_rehearsal() -> None:
    grow = Regrowth(RandomRegrowth(), allocation=Trying())
    two = two_stages()
    program = Program((two.stages[0], Stage(Plan(two.stages[1].plan.schedule, regrowth=grow),
                                            Step(1))))  # fmt: skip
    model = network()
    with pytest.raises(RegrowError, match="rehearse="):
        regrow.attach(model, sgd(model), program, loss_fn=loss_fn, data=batches(2))


def test_a_step_that_fails_does_not_count_what_is_remembered_twice() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = regrow.attach(model, optimizer, competing(1))
    train(model, optimizer, batches(2), handle)
    before = {n: v.clone() for n, v in handle._at.away.items()}

    def fail(*_: Any) -> None:
        raise MemoryError

    failing = optimizer.register_step_pre_hook(fail)
    with pytest.raises(MemoryError):
        optimizer.step()
    failing.remove()
    optimizer.zero_grad()
    optimizer.step()  # No gradients: nothing moves.
    assert same(before, handle._at.away)


def test_memory_that_comes_too_late_is_refused() -> None:
    cut = Stage(Plan(OneShot(0.9)), Step(1))
    with pytest.raises(RegrowError, match="cut without a memory"):
        Program((cut, Stage(Plan(OneShot(0.6), memory=0), Step(1))))
    model = network()
    regrow.prune(model, 0.5)
    masks = {n: model.get_parameter(n).detach() != 0 for n in WEIGHTS}
    with pytest.raises(RegrowError, match="no values to remember"):
        regrow.attach(model, sgd(model), competing(0), masks=masks)


def test_patience_and_a_memory_that_learns_do_not_go_together() -> None:
    with pytest.raises(RegrowError, match="patience goes back"):
        Plan(Patience((0.5, 0.9), (2,)), memory=0.5)


def test_an_exchange_that_could_not_happen_is_refused() -> None:
    grow = Regrowth(RandomRegrowth(), exchange=0.1)
    with pytest.raises(RegrowError, match="needs events over time"):
        Plan(OneShot(0.5), regrowth=grow)
    with pytest.raises(RegrowError, match="from all layers"):
        Regrowth(RandomRegrowth(), layers=("4",), exchange=0.1)


def test_floors_hold_in_an_exchange() -> None:
    model = network()
    optimizer = plain(model.parameters())
    grow = Regrowth(RandomRegrowth(), exchange=0.9)
    way = Rebound(0.9, 0.9, IT(2), IT(6), IT(1))
    program = Program((Stage(Plan(way, Magnitude(), regrowth=grow, floor=18), IT(8)),))
    handle = regrow.attach(model, optimizer, program)
    for batch in batches(8):
        train(model, optimizer, [batch], handle)
        assert min(handle.masks.kept.values()) >= 18
    assert sum(handle.masks.kept.values()) == kept_count(TOTAL, 0.1)
