"""Groups that leave whole: the smaller network is the masked one, and outputs still learn."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structured_blocks import KINDS, Blocks, Kind, built, images, kinds
from structured_zoo import Net, close, gradients, smaller
from torch import Tensor, nn

import regrow
from regrow.core.errors import RegrowError
from regrow.engine.cut import others
from regrow.engine.stand_ins import NoInputs, NoOutputs, Passing
from regrow.engine.surgery import Edits, apply
from regrow.engine.trial import Trial
from regrow.engine.whole import branches
from regrow.model.walk import named_tensors


def free(groups: Any) -> list[str]:
    return [group.name for group in groups if group.name not in groups.needed]


def agree(a: nn.Module, b: nn.Module, x: Tensor, share: float) -> bool:
    with torch.no_grad():
        return close(a(x), b(x), share)


def without(groups: Any, names: Any, bits: int = 0) -> dict[str, Tensor]:
    """Some groups leave whole, and of the others some units by the bits of a number."""
    keep = {}
    for group in groups:
        some = torch.tensor([not bits >> i & 1 for i in range(len(group))])
        some[0] = True
        keep[group.name] = some & (group.name not in names)
    return keep


@pytest.mark.parametrize("name", KINDS)
def test_the_insides_of_every_kind_of_branch_may_leave(name: str) -> None:
    model = built((Kind(name, True, True, 3),))
    groups = regrow.groups(model, images())
    inside = {"first": "blocks.0.first", "middle": "blocks.0.middle", "down": "blocks.0.down"}
    expected = {"bottleneck": ["first", "middle"], "gated": ["first", "down"]}.get(name, ["first"])
    assert free(groups) == [inside[each] for each in expected]
    assert groups.needed.keys() == {"stem"}
    assert "not depend on the example" in groups.needed["stem"]
    small = regrow.shrink(model, images(), without(groups, free(groups)), groups=groups).model
    assert isinstance(small.blocks[0].first, NoOutputs)
    assert isinstance(small.blocks[0].last, NoInputs)


@settings(max_examples=40, deadline=None)
@given(kinds(), st.integers(0, 2**12), st.integers(0, 2**5 - 1), st.integers(1, 99))
def test_shrunk_is_masked_forward_and_backward(
    made: tuple[Kind, ...], chosen: int, bits: int, seed: int
) -> None:
    model, x = built(made, torch.float64), images(0, torch.float64)
    groups = regrow.groups(model, x)
    names = {name for i, name in enumerate(free(groups)) if chosen >> i & 1}
    keep = without(groups, names, bits)
    done = regrow.shrink(model, x, keep, groups=groups)
    expected = regrow.masked(model, keep, groups=groups)
    other = images(seed, torch.float64)
    assert agree(done.model, expected, other, 1e-10)
    theirs = gradients(expected, (other,))
    scale = max(float(each.abs().max()) for each in theirs.values())
    for key, gradient in gradients(done.model, (other,)).items():
        wanted = done.index_map(key, theirs[key])
        assert gradient.shape == wanted.shape
        assert bool(((gradient - wanted).abs() <= 1e-10 * scale).all()), key
    shapes = {key: tuple(p.shape) for key, p in model.named_parameters()}
    count = sum(p.numel() for p in done.model.parameters())
    assert count == smaller(shapes, done.index_map.keep) == groups.parameters(keep)
    assert regrow.groups(done.model, x).macs() == groups.macs(keep)
    assert done.model.state_dict().keys() == model.state_dict().keys()
    again = apply(model, Edits.of(json.loads(json.dumps(done.edits.json()))))
    assert torch.equal(again(other), done.model(other))
    assert agree(done.model.float(), expected.float(), other.float(), 1e-5)


@settings(max_examples=20, deadline=None)
@given(kinds(), st.integers(0, 2**12))
def test_training_goes_as_with_masks(made: tuple[Kind, ...], chosen: int) -> None:
    """Three steps, with norms by the batch behind what has become a constant."""
    model, x = built(made, torch.float64), images(0, torch.float64)
    groups = regrow.groups(model, x)
    keep = without(groups, {n for i, n in enumerate(free(groups)) if chosen >> i & 1})
    done = regrow.shrink(model, x, keep, groups=groups)
    whole = regrow.masked(model, keep, groups=groups)
    masks = groups.masks(keep, dict(whole.named_parameters()))
    nets = [done.model.train(), whole.train()]
    optimizers = [torch.optim.SGD(net.parameters(), 0.01, momentum=0.9) for net in nets]
    for step in range(3):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            net(images(step, torch.float64)).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            for name, parameter in whole.named_parameters():
                parameter.mul_(masks[name])
    for net in nets:
        net.eval()
    assert agree(done.model, whole, x, 1e-8)


@settings(max_examples=40, deadline=None)
@given(kinds(st.booleans()), st.integers(1, 2**12))
def test_what_may_leave_together_leaves_outputs_that_learn(
    made: tuple[Kind, ...], chosen: int
) -> None:
    """By brute force: the masked network gives other outputs for another input."""
    model, x = built(made, torch.float64), images(0, torch.float64)
    groups = regrow.groups(model, x)

    def learns(names: set[str]) -> bool:
        kept = groups.kept(groups.classes(without(groups, names)))
        net = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                for dim, indices in kept.get(name, {}).items():
                    parameter.index_fill_(dim, others(parameter, dim, indices), 0)
            off = (net(x) - net(images(1, torch.float64))).abs().amax(0)
        return bool((off > 1e-13).all())

    every = [group.name for group in groups]
    for name in every:
        assert learns({name}) == (name not in groups.needed), name
    names = {name for i, name in enumerate(free(groups)) if chosen >> i & 1}
    assert groups.holds_without(names) == learns(names)
    if not learns(names):
        with pytest.raises(RegrowError, match="would no longer depend on the example"):
            regrow.shrink(model, x, without(groups, names), groups=groups)


@settings(max_examples=30, deadline=None)
@given(kinds())
def test_groups_are_needed_alone_as_outputs_tell(made: tuple[Kind, ...]) -> None:
    """All at once, against each group on its own."""
    groups = regrow.groups(built(made), images())
    for group in groups:
        whole = "hold other channels" not in groups.needed.get(group.name, "")
        if whole and groups.needed.get(group.name) != "the code does not follow a cut":
            assert (group.name in groups.needed) != groups.holds_without([group.name])


def test_whole_groups_are_tried_in_small_networks_alone() -> None:
    """The quick trial and the one of the whole network agree, here that all may leave."""
    model, x = built((Kind("bottleneck", True, True, 3), Kind("gated", True, True, 3))), images()
    groups = regrow.groups(model, x)
    leaving = [group for group in groups if group.name not in groups.needed]
    keep = {g.name: torch.arange(len(g)) != len(g) // 2 for g in groups}
    trial = Trial(model, x)
    assert trial.follows(groups, keep)
    assert trial.lets_go(groups, keep, leaving)
    assert trial.follows(groups, {g.name: torch.zeros(len(g), dtype=torch.bool) for g in leaving})


def test_groups_of_one_branch_leave_together() -> None:
    model = built((Kind("bottleneck", True, False, 3), Kind("gated", True, False, 3)))
    groups = regrow.groups(model, images())
    first, second = "blocks.0.", "blocks.1."
    assert branches(groups) == [
        (first + "first", first + "middle"),
        (second + "first", second + "down"),
        (second + "down",),
    ]


def test_two_ways_that_need_each_other() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.z(self.b(self.a(x).relu()) + self.d(self.c(x).relu()))

    model = Net(
        forward,
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 4, 1),
        c=nn.Conv2d(3, 4, 1),
        d=nn.Conv2d(4, 4, 1),
        z=nn.Conv2d(4, 2, 1),
    ).eval()
    groups = regrow.groups(model, images())
    assert free(groups) == ["a", "c"]
    for name in "ac":
        regrow.shrink(model, images(), without(groups, {name}), groups=groups)
    with pytest.raises(RegrowError, match="without any units of a, c an output of the network"):
        regrow.shrink(model, images(), without(groups, {"a", "c"}), groups=groups)
    keep = regrow.choose(model, groups, 0.45, of="macs", whole=True)
    assert [name for name, mask in keep.items() if not mask.any()] in (["a"], ["c"])


class Own(nn.Conv2d):
    """Convolves in its own way."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Counts(nn.Module):
    """A branch whose code asks its layer how many channels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.first(x).view(len(x), self.first.out_channels, *x.shape[2:]))


@pytest.mark.parametrize(
    ("inside", "layer", "reason"),
    [
        ("plain", "stem", "without it an output of the network would not depend on the example"),
        ("own", "inside.first", "the code does not follow a cut"),
        ("counts", "inside.first", "the code does not follow a cut"),
        ("beside", "inside.first", "its layers hold other channels too"),
    ],
)
def test_what_may_not_leave_is_refused_by_name(inside: str, layer: str, reason: str) -> None:
    def beside(self: Any, x: Tensor) -> Tensor:
        return x + self.last(torch.cat([self.first(x), self.second(x)], 1))

    parts: dict[str, nn.Module] = {
        "plain": nn.ReLU(),
        "own": Net(
            lambda s, x: x + s.last(s.first(x)), first=Own(4, 6, 1), last=nn.Conv2d(6, 4, 1)
        ),
        "counts": Counts(),
        "beside": Net(
            beside,
            first=nn.Conv2d(4, 6, 1),
            second=nn.Conv2d(4, 6, 1),
            last=nn.Conv2d(12, 4, 1),
        ),
    }
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 4, 1))
    model.add_module("inside", parts[inside])
    model.add_module("head", nn.Conv2d(4, 2, 1))
    groups = regrow.groups(model.eval(), images())
    message = f"{layer} would lose all of its {len(groups[layer])} units; keep at least one: "
    with pytest.raises(RegrowError, match=message + reason):
        regrow.shrink(model, images(), without(groups, {layer}), groups=groups)


def test_a_layer_used_twice_is_replaced_in_both_places() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.first = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1)
            self.again, self.last, self.head = self.first, nn.Conv2d(6, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.last(self.first(x).relu())
            return self.head(x + self.last(self.again(x).relu()))

    model = Twice().eval()
    groups = regrow.groups(model, images())
    keep = without(groups, {"first"})
    small = regrow.shrink(model, images(), keep, groups=groups).model
    assert small.first is small.again
    expected = regrow.masked(model, keep, groups=groups)
    assert agree(small, expected, images(4), 1e-5)


def test_a_smaller_network_is_cut_again() -> None:
    """The bias that stands for a branch belongs to the stream's channels."""
    for norm in (True, False):
        for bias in (True, False):
            model = built((Kind("post", norm, bias, 3), Kind("post", True, bias, 4)))
            groups = regrow.groups(model, images())
            small = regrow.shrink(model, images(), without(groups, {"blocks.0.first"})).model
            again = regrow.groups(small, images())
            assert {group.name: len(group) for group in again} == {"stem": 4, "blocks.1.first": 4}
            keep = without(again, {"blocks.1.first"}, 0b0110)
            last = regrow.shrink(small, images(), keep, groups=again).model
            expected = regrow.masked(small, keep, groups=again)
            assert agree(last, expected, images(5), 1e-5)


def test_optimizer_state_without_the_parameters_that_left() -> None:
    model = built((Kind("post", True, True, 3), Kind("pre", True, True, 3)), torch.float64)
    x = images(0, torch.float64)
    groups = regrow.groups(model, x)
    keep = without(groups, {"blocks.0.first"}, 0b010)
    whole = regrow.masked(model, keep, groups=groups)

    def step(net: nn.Module, by: torch.optim.Optimizer, seed: int) -> None:
        by.zero_grad()
        net(images(seed, torch.float64)).square().mean().backward()
        by.step()

    def optimizer(net: nn.Module) -> torch.optim.Optimizer:
        ordered = list(net.parameters())
        return torch.optim.SGD([{"params": ordered[:3]}, {"params": ordered[3:]}], 0.01, 0.9)

    first = optimizer(whole)
    step(whole, first, 1)
    done = regrow.shrink(whole, x, keep, groups=groups)
    second = optimizer_like(first, whole, done)
    again = regrow.masked(whole, keep, groups=groups)
    third = optimizer(again)
    third.load_state_dict(first.state_dict())
    step(done.model, second, 2)
    step(again, third, 2)
    for key, parameter in done.model.named_parameters():
        expected = done.index_map(key, dict(again.named_parameters())[key])
        assert close(parameter.detach(), expected.detach(), 1e-9), key


def optimizer_like(
    first: torch.optim.Optimizer, model: nn.Module, done: regrow.Shrunk
) -> torch.optim.Optimizer:
    """Over the parameters that are left, in the same groups."""
    state = done.index_map.optimizer_state(first, model)
    names = {id(p): name for name, p in model.named_parameters()}
    left = dict(done.model.named_parameters())
    groups = [
        {"params": [left[names[id(p)]] for p in group["params"] if names[id(p)] in left]}
        for group in first.param_groups
    ]
    second = torch.optim.SGD(groups, 0.01, 0.9)
    second.load_state_dict(state)
    return second


def test_a_branch_that_left_comes_back() -> None:
    model = built((Kind("post", True, True, 3), Kind("bottleneck", True, True, 3)))
    groups = regrow.groups(model, images())
    keep = without(groups, {*free(groups)})
    small = regrow.shrink(model, images(), keep, groups=groups)
    with torch.no_grad():
        for parameter in small.model.parameters():
            parameter.add_(1)
    back = without(groups, {"blocks.1.first", "blocks.1.middle"})
    grown = regrow.grow(small, model, images(), back, groups=groups)
    dense, now = named_tensors(model), named_tensors(grown.model)
    assert torch.equal(now["blocks.0.first.weight"], dense["blocks.0.first.weight"])
    assert torch.equal(now["blocks.0.last.weight"], dense["blocks.0.last.weight"])
    assert torch.equal(now["blocks.0.last.bias"], dense["blocks.0.last.bias"] + 1)
    assert torch.equal(now["stem.weight"], dense["stem.weight"] + 1)
    assert isinstance(grown.model.blocks[1].first, NoOutputs)
    assert not any(isinstance(each, Passing) for each in grown.model.blocks[0].modules())


def test_a_stand_in_says_what_it_stands_for() -> None:
    model: Blocks = built((Kind("post", True, True, 3),))
    groups = regrow.groups(model, images())
    small = regrow.shrink(model, images(), without(groups, free(groups)), groups=groups).model
    assert str(small.blocks[0].first) == "NoOutputs(for Conv2d)"
    assert str(small.blocks[0].norm1) == "Passing(for BatchNorm2d)"
