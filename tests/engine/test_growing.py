"""Growing regularisation: strengths by schedule, chosen early, removed late without a jump."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_small import batches, loss_fn, network
from torch import Tensor, nn

import regrow
from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.parts.criteria.magnitude import Magnitude
from regrow.parts.penalty.growing import Growing
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.manual import Manual
from regrow.recipes import greg1, greg2, one_shot

IT = Step.iterations
DATA = batches(6)


def sgd(model: nn.Module, lr: float = 0.05, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, **{"momentum": 0.9, **options})


def program(penalty: Growing, last: Step, sparsity: float = 0.7, epochs: int = 8) -> Program:
    plan = Plan(Manual((sparsity,), (last,)), Magnitude(), penalty=penalty)
    return Program((Stage(plan, Step.epochs(epochs)),))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for index in range(count):
        optimizer.zero_grad()
        loss_fn(model, DATA[index % len(DATA)]).backward()
        optimizer.step()


def test_strengths_follow_the_published_schedule() -> None:
    first = Growing(delta=0.25, every=IT(3), ceiling=1.0)
    assert first.choice == IT(0)
    expected = [0, 0, 0, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75, 1, 1, 1, 1, 1]
    assert [first.strengths(IT(i)) for i in range(17)] == [(s, 0.0) for s in expected]
    second = Growing(0.3, IT(2), 1.0, pick=0.02, pick_delta=0.01, recover=-1e-4)
    assert second.choice == IT(4)
    assert [second.strengths(IT(i)) for i in range(4)] == [
        (0, 0),
        (0, 0),
        (0.01, 0.01),
        (0.01,) * 2,
    ]
    assert [second.strengths(IT(i))[0] for i in (4, 6, 8, 10, 12)] == pytest.approx(
        [0.02, 0.32, 0.62, 0.92, 1.0]
    )
    assert second.strengths(IT(4))[1] == -1e-4
    # Published: tau / delta * K_u iterations of growth, and 10,000 on CIFAR before the choice.
    published = Growing(1e-4, IT(10), 1.0, pick=1e-2, pick_delta=1e-5)
    assert published.choice == IT(10_000)
    assert published.strengths(IT(10_000 + 99_000))[0] == pytest.approx(1.0)


def test_a_step_adds_the_penalty_to_the_gradient_and_nothing_else() -> None:
    model, plain = network(1), network(1)
    optimizer, other = sgd(model, weight_decay=1e-3), sgd(plain, weight_decay=1e-3)
    penalty = Growing(delta=0.2, every=IT(1))
    handle = regrow.attach(model, optimizer, program(penalty, IT(8)))
    weight, twin = model[4].weight, plain[4].weight
    order = twin.detach().abs().flatten().argsort()
    for index in range(6):
        optimizer.zero_grad()
        other.zero_grad()
        loss_fn(model, DATA[index]).backward()
        loss_fn(plain, DATA[index]).backward()
        optimizer.step()
        goes = ~handle._at.pending["4.weight"]  # type: ignore[index]
        assert twin.grad is not None
        twin.grad.add_(torch.where(goes, 0.2 * index, 0.0) * twin.detach())
        for number in (0, 6):
            gone = ~handle._at.pending[f"{number}.weight"]  # type: ignore[index]
            grad = plain[number].weight.grad
            assert isinstance(grad, Tensor)
            grad.add_(torch.where(gone, 0.2 * index, 0.0) * plain[number].weight.detach())
        other.step()
        torch.testing.assert_close(weight, twin, rtol=0, atol=1e-7)
    # Chosen at the start, by the magnitudes of the start.
    count = int(goes.sum())
    assert set(goes.flatten().nonzero().flatten().tolist()) <= set(order[: count + 40].tolist())


def test_chosen_at_the_start_and_removed_at_the_end() -> None:
    model = network(2)
    twin = copy.deepcopy(model)
    regrow.prune(twin, 0.7, criterion="magnitude")
    chosen = {name: p != 0 for name, p in twin.named_parameters()}
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, program(Growing(0.2, IT(1)), IT(9)))
    steps(model, optimizer, 8)
    assert handle.sparsity == 0
    assert handle.events == []
    steps(model, optimizer, 1)
    assert handle.sparsity == pytest.approx(0.7, abs=1e-3)
    assert [event["kind"] for event in handle.events] == ["prune"]
    for name, mask in handle.masks.items():
        assert torch.equal(mask, chosen[name])
    before = model[4].weight.detach().clone()
    kept = handle.masks["4.weight"]
    steps(model, optimizer, 1)
    assert (model[4].weight[~kept] == 0).all()
    assert (model[4].weight[kept] != before[kept]).any()


class Quadratic(nn.Module):
    """1/2 sum h (w - 1)^2: what bends little gives way first."""

    def __init__(self, curvature: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(len(curvature), 1, bias=False)
        self.curvature = curvature
        nn.init.ones_(self.layer.weight)

    def forward(self, _: Any) -> Tensor:
        return 0.5 * (self.curvature * (self.layer.weight[0] - 1).square()).sum()


def test_the_second_form_removes_what_bends_least() -> None:
    source = torch.Generator().manual_seed(0)
    curvature = torch.rand(40, generator=source) * 0.9 + 0.1
    model = Quadratic(curvature)
    optimizer = sgd(model, lr=0.1, momentum=0.0)
    penalty = Growing(0.1, IT(50), 1.0, pick=0.05, pick_delta=0.01, recover=-1e-4)
    handle = regrow.attach(model, optimizer, program(penalty, IT(900), sparsity=0.5, epochs=99))
    for index in range(900):
        if index == 250:  # settled at the strength right before the choice: w = h / (h + strength)
            expected = curvature / (curvature + 0.04)
            torch.testing.assert_close(model.layer.weight[0].detach(), expected, atol=0.1, rtol=0)
        optimizer.zero_grad()
        model(None).backward()
        optimizer.step()
    gone = ~handle.masks["layer.weight"][0]
    assert set(gone.nonzero().flatten().tolist()) == set(curvature.argsort()[:20].tolist())


@pytest.mark.parametrize(("pattern", "sparsity"), [("element", 0.9), ("unit", 0.6)])
def test_the_removal_is_no_jump(pattern: str, sparsity: float) -> None:
    def loss(model: nn.Module) -> float:
        with torch.no_grad():
            return sum(float(loss_fn(model, batch)) for batch in DATA) / len(DATA)

    def trained() -> nn.Module:
        model = network(3)
        steps(model, sgd(model), 120)
        return model

    model, example = trained(), DATA[0][0][:1]
    options: Any = {"sparsity": sparsity, "epochs": 9, "removal": "220it", "every": "2it"}
    made = greg1(**options, pattern=pattern, criterion=None)
    optimizer = sgd(model)
    handle = regrow.attach(model, optimizer, made, example=example)
    steps(model, optimizer, 219)
    before = copy.deepcopy(model)
    steps(model, optimizer, 1)
    assert len(handle.events) == 1
    after = copy.deepcopy(before)
    for name, parameter in after.named_parameters():
        if name in handle._at.masks:
            parameter.data[~handle._at.masks[name]] = 0
    cut = trained()
    plain = one_shot(sparsity, 3, pattern=pattern, criterion=None)
    regrow.attach(cut, sgd(cut), plain, example=example)
    jump, reference = abs(loss(after) - loss(before)), abs(loss(cut) - loss(trained()))
    assert reference > 0.05
    # What is left of a weight is its gradient over the strength.
    assert jump < 0.15 * reference


def test_beside_a_scaler_and_clipping() -> None:
    """Unscaled and clipped gradients first, then the penalty, which neither of them sees."""
    plain, scaled = network(4), network(4)
    penalty = Growing(0.5, IT(1))
    one, two = sgd(plain), sgd(scaled)
    regrow.attach(plain, one, program(penalty, IT(6)))
    regrow.attach(scaled, two, program(penalty, IT(6)))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for batch in DATA[:5]:
        one.zero_grad()
        two.zero_grad()
        loss_fn(plain, batch).backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        one.step()
        scaler.scale(loss_fn(scaled, batch)).backward()
        scaler.unscale_(two)
        again = nn.utils.clip_grad_norm_(scaled.parameters(), 0.1)
        torch.testing.assert_close(again, norm, rtol=1e-5, atol=0)
        scaler.step(two)
        scaler.update()
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_fused_optimizer_that_unscales_by_itself() -> None:
    plain, scaled = network(4), network(4)
    one, two = sgd(plain), sgd(scaled, fused=True)
    for model, optimizer in ((plain, one), (scaled, two)):
        regrow.attach(model, optimizer, program(Growing(0.5, IT(1)), IT(6)))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for batch in DATA[:5]:
        one.zero_grad()
        two.zero_grad()
        loss_fn(plain, batch).backward()
        one.step()
        scaler.scale(loss_fn(scaled, batch)).backward()
        scaler.step(two)
        scaler.update()
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_adaptive_optimizers_shrink_by_rate_times_strength() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    handle = regrow.attach(model, optimizer, program(Growing(0.5, IT(1)), IT(4), 0.5))
    start = model[0].weight.detach().clone()
    for _ in range(3):
        model[0].weight.grad = torch.zeros(4, 4)
        optimizer.step()
    goes = ~handle._at.pending["0.weight"]  # type: ignore[index]
    factor = math.prod(1 - 0.1 * 0.5 * i for i in range(3))
    torch.testing.assert_close(model[0].weight.detach()[goes], start[goes] * factor)
    assert torch.equal(model[0].weight.detach()[~goes], start[~goes])


@pytest.mark.parametrize("stop", [2, 5, 9, 13])
@pytest.mark.parametrize("make", [greg1, greg2])
def test_taken_up_again_to_the_bit(stop: int, make: Any) -> None:
    made = make(0.7, 4, removal="12it", every="1it")

    def run(resume: int | None) -> tuple[nn.Module, regrow.Pruning]:
        model = network(5)
        optimizer = sgd(model)
        handle = regrow.attach(model, optimizer, made)
        for index in range(16):
            if index == resume:
                saved = copy.deepcopy(
                    (model.state_dict(), optimizer.state_dict(), handle.state_dict())
                )
                model = network(6)
                optimizer = sgd(model)
                model.load_state_dict(saved[0])
                optimizer.load_state_dict(saved[1])
                handle = regrow.attach(model, optimizer, made, resume=saved[2])
            optimizer.zero_grad()
            loss_fn(model, DATA[index % len(DATA)]).backward()
            optimizer.step()
        return model, handle

    (one, first), (two, second) = run(None), run(stop)
    assert first.events == second.events
    assert first.sparsity == pytest.approx(0.7, abs=1e-3)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_units_end_as_a_smaller_network() -> None:
    model, example = network(7), DATA[0][0][:1]
    optimizer = sgd(model)
    made = greg2(0.5, 4, removal="12it", every="1it", pattern="unit")
    handle = regrow.attach(model, optimizer, made, example=example)
    steps(model, optimizer, 12)
    for _ in range(4):
        handle.epoch_end()
    handle.finalize()
    small = regrow.shrink(model, example, handle.units).model
    torch.testing.assert_close(small.eval()(DATA[0][0]), model.eval()(DATA[0][0]))
    assert Program.from_json(made.to_json()) == made


def test_what_is_refused() -> None:
    with pytest.raises(RegrowError, match="must be above zero"):
        Growing(delta=0.0)
    with pytest.raises(RegrowError, match="between 0 and the ceiling"):
        Growing(pick=2.0)
    with pytest.raises(RegrowError, match="one event"):
        Plan(Cubic(0.9, Step.epochs(5)), penalty=Growing(every=Step(1)))
    with pytest.raises(RegrowError, match="counted in iterations"):
        Plan(Manual((0.9,), (Step(5),)), penalty=Growing())
    late = Growing(0.1, IT(10), 1.0, pick=0.1, pick_delta=0.01)
    with pytest.raises(RegrowError, match="after the choice at 100it"):
        Plan(Manual((0.9,), (IT(100),)), penalty=late)
    with pytest.raises(RegrowError, match="nothing to return, go back to or make"):
        Plan(Manual((0.9,), (IT(9),)), penalty=Growing(), memory=0.0)
    with pytest.raises(RegrowError, match="of one unit"):
        greg1(0.9, 10, removal="100it")
    with pytest.raises(RegrowError, match="never grows"):
        greg1(0.9, 10, removal=1)
    with pytest.raises(RegrowError, match="at least two"):
        greg2(0.9, 10, removal=2)
    plan = greg1(0.9, 10).stages[0].plan
    assert replace(plan, penalty=None) != plan
