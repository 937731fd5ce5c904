"""Smaller networks: they compute what masked ones do, for any units and any input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structured_convs import CONVS
from structured_tokens import TOKEN_NETS
from structured_zoo import Case, Net, built, close, gradients, keeps, of, run, smaller
from torch import Tensor, nn

import regrow
from regrow.core.errors import RegrowError

CASES: dict[str, Case] = {
    **{f"convs: {name}": each for name, each in CONVS.items()},
    **{f"tokens: {name}": each for name, each in TOKEN_NETS.items()},
}
CUT = {name: each for name, each in CASES.items() if each.groups}


@pytest.mark.parametrize("name", CASES)
def test_the_groups_are_known(name: str) -> None:
    each = CASES[name]
    model, groups = of(each)
    assert {group.name: len(group) for group in groups} == each.groups
    reasons = {bound.layer: bound.reason for bound in groups.bound}
    assert reasons.keys() >= each.bound.keys()
    for layer, reason in each.bound.items():
        assert reason in reasons[layer]
    assert not groups.coupling.unknown
    assert not model.training


@pytest.mark.parametrize("name", CUT)
def test_shrunk_is_masked(name: str) -> None:
    each = CUT[name]
    model, groups = of(each)
    before = {key: t.clone() for key, t in model.state_dict().items()}
    shapes = {key: tuple(p.shape) for key, p in model.named_parameters()}

    @settings(max_examples=12, deadline=None)
    @given(keep=keeps(groups), seed=st.integers(1, 2**31))
    def check(keep: dict[str, Tensor], seed: int) -> None:
        done = regrow.shrink(model, each.inputs(0), keep, groups=groups)
        expected = regrow.masked(model, keep, groups=groups)
        inputs = each.inputs(seed)
        with torch.no_grad():
            for a, b in zip(run(done.model, inputs), run(expected, inputs), strict=True):
                assert close(a, b, 1e-5)
        count = sum(p.numel() for p in done.model.parameters())
        assert count == smaller(shapes, done.index_map.keep)
        if any(not stays.all() for stays in keep.values()):
            assert count < sum(p.numel() for p in model.parameters())

    check()
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def some(groups: Any, seed: int) -> dict[str, Tensor]:
    """Units that stay: about half, and at least one of each group."""
    numbers = torch.Generator().manual_seed(seed)
    keep = {}
    for group in groups:
        order = torch.randperm(len(group), generator=numbers)
        keep[group.name] = torch.zeros(len(group), dtype=torch.bool)
        keep[group.name][order[: (len(group) + 1) // 2]] = True
    return keep


@pytest.mark.parametrize("name", CUT)
def test_gradients_of_kept_entries_are_the_same(name: str) -> None:
    each = CUT[name]
    model = built(each, torch.float64)
    groups = regrow.groups(model, each.inputs(0, torch.float64))
    for seed in range(2):
        keep = some(groups, seed)
        done = regrow.shrink(model, each.inputs(0, torch.float64), keep, groups=groups)
        inputs = each.inputs(seed + 1, torch.float64)
        found = gradients(done.model, inputs)
        expected = gradients(regrow.masked(model, keep, groups=groups), inputs)
        assert found.keys() == expected.keys()
        scale = max(float(g.abs().max()) for g in expected.values())
        for key, gradient in found.items():
            other = done.index_map(key, expected[key])
            assert gradient.shape == other.shape
            assert bool(((gradient - other).abs() <= 1e-10 * scale).all()), key


@pytest.mark.parametrize("name", CUT)
def test_multiply_adds_and_parameters_are_those_of_the_smaller_network(name: str) -> None:
    each = CUT[name]
    model, groups = of(each)
    keep = some(groups, 5)
    small = regrow.shrink(model, each.inputs(0), keep, groups=groups).model
    again = regrow.groups(small, each.inputs(0))
    assert again.macs() == groups.macs(keep) < groups.macs()
    assert again.parameters() == groups.parameters(keep) < groups.parameters()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("name", ["convs: residual", "convs: grouped", "tokens: tied embedding"])
def test_a_step_with_carried_state_is_the_same(kind: str, name: str) -> None:
    """Two steps before the cut, one after it."""
    each = CASES[name]
    model = built(each, torch.float64)
    groups = regrow.groups(model, each.inputs(0, torch.float64))
    keep = some(groups, 2)
    whole = regrow.masked(model, keep, groups=groups)

    def optimizer(of: nn.Module) -> torch.optim.Optimizer:
        makers: dict[str, Any] = {
            "sgd": lambda p: torch.optim.SGD(p, 0.001),
            "momentum": lambda p: torch.optim.SGD(p, 0.001, momentum=0.9, nesterov=True),
            "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
            "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
            "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
        }
        ordered = list(of.parameters())
        found: torch.optim.Optimizer = makers[kind](
            [{"params": ordered[::2]}, {"params": ordered[1::2], "lr": 0.003}]
        )
        return found

    def step(net: nn.Module, by: torch.optim.Optimizer, seed: int) -> None:
        by.zero_grad()
        sum(out.square().mean() for out in run(net, each.inputs(seed, torch.float64))).backward()
        by.step()

    first = optimizer(whole)
    step(whole, first, 1)
    step(whole, first, 2)
    done = regrow.shrink(whole, each.inputs(0, torch.float64), keep, groups=groups)
    carried = done.index_map.optimizer_state(first, whole)
    second = optimizer(done.model)
    second.load_state_dict(carried)
    again = regrow.masked(whole, keep, groups=groups)
    third = optimizer(again)
    third.load_state_dict(copy.deepcopy(first.state_dict()))
    before = copy.deepcopy(first.state_dict())
    step(done.model, second, 3)
    assert same(first.state_dict(), before)  # nothing is shared with the former optimizer
    step(again, third, 3)
    expected = dict(again.named_parameters())
    for key, parameter in done.model.named_parameters():
        other = done.index_map(key, expected[key])
        assert close(parameter.detach(), other.detach(), 1e-9), key
        state = second.state[parameter]
        assert all(
            t.shape == parameter.shape for t in state.values() if torch.is_tensor(t) and t.dim()
        )


def test_optimizer_state_of_a_wrapped_network() -> None:
    model, groups = of(CASES["tokens: linear 2d"])
    wrapped = nn.DataParallel(copy.deepcopy(model))
    by = torch.optim.SGD(wrapped.parameters(), 0.1, momentum=0.9)
    sum(out.sum() for out in run(wrapped, (torch.randn(3, 6),))).backward()
    by.step()
    done = regrow.shrink(wrapped, (torch.randn(3, 6),), some(groups, 0), groups=groups)
    carried = done.index_map.optimizer_state(by, wrapped)
    shapes = [tuple(state["momentum_buffer"].shape) for state in carried["state"].values()]
    assert shapes == [tuple(p.shape) for p in done.model.parameters()]


def test_an_optimizer_of_another_network() -> None:
    model, groups = of(CASES["tokens: linear 2d"])
    done = regrow.shrink(model, (torch.randn(3, 6),), some(groups, 0), groups=groups)
    by = torch.optim.SGD(nn.Linear(3, 2).parameters(), 0.1)
    with pytest.raises(
        RegrowError, match=r"a parameter of shape \(2, 3\) that the network has not"
    ):
        done.index_map.optimizer_state(by, model)
    with pytest.raises(RegrowError, match=r"a.weight had shape \(8, 6\); got a tensor of \(6, 8\)"):
        done.index_map("a.weight", torch.zeros(6, 8))


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        ({"a": torch.zeros(8, dtype=torch.bool)}, "a would lose all of its 8 units"),
        ({"a": torch.ones(7, dtype=torch.bool)}, "a has 8 units; give a boolean for each"),
        ({"a": torch.ones(8, 1, dtype=torch.bool)}, "a has 8 units; give a boolean for each"),
        ({"a": torch.ones(8)}, "a has 8 units; give a boolean for each, not torch.float32"),
        ({"a": torch.arange(8)}, "a has 8 units; give a boolean for each, not torch.int64"),
        ({"b": torch.ones(8, dtype=torch.bool)}, "unknown group 'b'"),
    ],
)
def test_masks_that_do_not_fit(keep: dict[str, Tensor], reason: str) -> None:
    model, groups = of(CASES["tokens: linear 2d"])
    with pytest.raises(RegrowError, match=reason):
        regrow.shrink(model, (torch.randn(3, 6),), keep, groups=groups)
    with pytest.raises(RegrowError, match=reason):
        regrow.masked(model, keep, groups=groups)


def test_nothing_removed_is_a_copy() -> None:
    model, groups = of(CASES["convs: residual"])
    inputs = CASES["convs: residual"].inputs(0)
    for keep in ({}, {group.name: torch.ones(len(group), dtype=torch.bool) for group in groups}):
        done = regrow.shrink(model, inputs, keep)
        assert done.model is not model
        assert done.index_map.keep == {}
        assert torch.equal(run(done.model, inputs)[0], run(model, inputs)[0])
        shared = {id(p) for p in model.parameters()} & {id(p) for p in done.model.parameters()}
        assert not shared


@pytest.mark.parametrize("blind", ["zero example", "zero head", "zero scale"])
def test_code_that_uses_the_width_is_found_whatever_hides_it(blind: str) -> None:
    """A network whose output says nothing does not prove that its code follows a cut."""

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.a(x)
        return x + s.scale * s.z(y / y.shape[1])

    scale = nn.Parameter(torch.zeros(6) if blind == "zero scale" else torch.ones(6))
    model = Net(
        forward,
        a=nn.Linear(6, 8, bias=blind != "zero example"),
        z=nn.Linear(8, 6, bias=blind != "zero example"),
        scale=scale,
    )
    if blind == "zero head":
        nn.init.zeros_(model.z.weight)
    example = torch.zeros(3, 6) if blind == "zero example" else torch.randn(3, 6)
    groups = regrow.groups(model.eval(), example)
    assert [group.name for group in groups] == []


def test_a_unit_that_is_larger_than_all_others_is_no_less_than_zero() -> None:
    """A masked unit takes part in a maximum as a zero, which an example need not show."""
    model = Net(
        lambda s, x: s.z(s.a(x).unsqueeze(1).amax(-1)), a=nn.Linear(6, 8), z=nn.Linear(1, 2)
    )
    model.a.bias.data += 5
    groups = regrow.groups(model.eval(), torch.randn(3, 6))
    assert not len(groups)
    pooled = Net(
        lambda s, x: s.z(nn.functional.adaptive_max_pool1d(s.a(x).unsqueeze(1), 1)[:, 0]),
        a=model.a,
        z=model.z,
    )
    assert not len(regrow.groups(pooled.eval(), torch.randn(3, 6)))


class Remembers(nn.Module):
    """Keeps what it computes from a parameter until it is trained again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.z, self.shift = nn.Linear(6, 8), nn.Linear(8, 2), nn.Parameter(torch.rand(8))
        self.kept: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Remembers:
        if mode:
            self.kept = {}
        return super().train(mode)

    def forward(self, x: Tensor) -> Any:
        if not self.kept:
            self.kept = {"shift": 2 * self.shift}
        return self.z(self.a(x) + self.kept["shift"])


def test_what_a_network_remembers_is_of_its_own_numbers() -> None:
    model, x = Remembers().eval(), torch.randn(4, 6)
    with torch.no_grad():
        before = model(x)
    groups = regrow.groups(model, x)
    assert {group.name: len(group) for group in groups} == {"shift": 8}
    keep = {"shift": torch.arange(8) % 2 == 0}
    small = regrow.shrink(model, x, keep, groups=groups).model
    with torch.no_grad():
        assert torch.equal(model(x), before)
        assert close(small(x), regrow.masked(model, keep, groups=groups).train().eval()(x), 1e-5)


class Blur(nn.Module):
    """Each channel by a filter of its own, as many as an attribute says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("filter", torch.ones(channels, 1, 3, 3) / 9)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.filter, groups=self.channels)


def test_a_number_of_groups_that_code_gives_follows_a_cut() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Blur(8), nn.Conv2d(8, 2, 3)).eval()
    x = torch.randn(2, 3, 9, 9)
    groups = regrow.groups(model, x)
    assert {group.name: len(group) for group in groups} == {"0": 8}
    done = regrow.shrink(model, x, {"0": torch.arange(8) > 2}, groups=groups)
    assert done.model[1].channels == 5
