"""Structured pruning of networks whose inputs, outputs or parts are unusual."""

from __future__ import annotations

import collections
import dataclasses
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, softmax

import regrow
from regrow import recipes
from regrow.core.errors import RegrowError


class Attention(nn.Module):
    """Heads by an attribute, behind a scale."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_heads, self.scale = 8, nn.Parameter(torch.tensor(scale))
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        count, length = x.shape[:2]
        q, k, v = self.qkv(x).reshape(count, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
        return x + self.scale * self.out((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("fill", "scale"), [(0.0, 1.0), (1.0, 1.0), (None, 0.0), (None, 1.0)])
def test_sizes_are_found_whatever_the_example_tells(fill: float | None, scale: float) -> None:
    model = Attention(scale).eval()
    example = torch.randn(2, 7, 32) if fill is None else torch.full((2, 7, 32), fill)
    groups = regrow.groups(model, example)
    keep = {"qkv": torch.arange(8) < 4}
    shrunk = regrow.shrink(model, example, keep, groups=groups).model
    masked = regrow.masked(model, keep, groups=groups)
    with torch.no_grad():
        masked.scale.fill_(1)
        shrunk.scale.fill_(1)
    other = torch.randn(3, 5, 32)
    assert shrunk.num_heads == 4
    torch.testing.assert_close(shrunk(other), masked(other))


class Bounded(Attention):
    """With the size of all heads, and as many places at most."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.max_len = 32

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.max_len:
            raise ValueError(f"at most {self.max_len} places; got {x.shape[1]}")
        q, k, v = self.qkv(x).split(self.inner, -1)
        shape = (*x.shape[:2], self.num_heads, -1)
        q, k, v = (each.reshape(shape).transpose(1, 2) for each in (q, k, v))
        found = (softmax(q @ k.transpose(-1, -2), -1) @ v).transpose(1, 2)
        return x + self.out(found.reshape(*x.shape[:2], self.inner))


def test_lengths_of_texts_stay_though_they_equal_a_size() -> None:
    model = Bounded().eval()
    keep = {"qkv": torch.arange(8) < 4}
    made = regrow.shrink(model, torch.randn(2, 7, 32), keep).model
    assert (made.num_heads, made.inner, made.max_len) == (4, 16, 32)
    assert made(torch.randn(1, 30, 32)).shape == (1, 30, 32)


class Wrapped(dict[str, Any]):
    pass


class Listed(list[Any]):
    pass


@dataclasses.dataclass
class Held:
    logits: list[Tensor]


class Slotted:
    __slots__ = ("logits",)

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


FORMS = {
    "a subclass of dict": lambda y: Wrapped(logits=y),
    "UserDict": lambda y: collections.UserDict(logits=y),
    "a proxy": lambda y: types.MappingProxyType({"logits": y}),
    "a subclass of list": lambda y: Listed([y]),
    "a set": lambda y: {y},
    "a dataclass with a list": lambda y: Held([y]),
    "slots": Slotted,
    "in each other": lambda y: (3, Wrapped(nest=[Held([y])])),
}


class Net(nn.Module):
    def __init__(self, form: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.form = nn.Linear(8, 16), nn.Linear(16, 3), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.b(relu(self.a(x))))


@pytest.mark.parametrize("form", FORMS)
def test_outputs_are_found_in_any_form(form: str) -> None:
    model, example = Net(FORMS[form]), torch.randn(2, 8)
    groups = regrow.groups(model, example)
    assert [group.name for group in groups] == ["a"]
    assert [bound.layer for bound in groups.bound] == ["b"]
    keep = regrow.choose(model, groups, 0.5)
    assert regrow.shrink(model, example, keep, groups=groups).model.b.weight.shape == (3, 8)


def test_outputs_that_cannot_be_seen_or_compared_are_refused() -> None:
    example = torch.randn(2, 8)
    with pytest.raises(RegrowError, match="no tensor can be found"):
        regrow.groups(Net(lambda y: "seen"), example)
    model = Net(lambda y: y.argmax(-1))
    groups = regrow.groups(model, example)
    keep = {"a": torch.arange(16) < 8}
    with pytest.raises(RegrowError, match="gives back no floating-point numbers"):
        regrow.shrink(model, example, keep, groups=groups)


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.a, self.b = nn.Embedding(30, 8), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.b(relu(self.a(self.e(ids).mean(1))))


def test_an_example_may_be_any_mapping() -> None:
    ids = torch.randint(0, 30, (3, 5))
    found = [
        regrow.groups(Bag(), example)
        for example in ({"ids": ids}, collections.UserDict(ids=ids), Wrapped(ids=ids))
    ]
    for groups in found:
        assert groups.needed.keys() == found[0].needed.keys()
        assert "a" in groups.needed
    program = recipes.one_shot(0.5, 1, pattern="unit")
    assert regrow.prepare(Bag(), program, example=collections.UserDict(ids=ids)) is not None


class Fourier(nn.Module):
    """Units that a buffer computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("basis", torch.randn(3, 16))
        self.a, self.b = nn.Linear(16, 24), nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(relu(self.a(torch.cos(x @ self.basis))))


def test_units_of_a_buffer() -> None:
    model, example = Fourier(), torch.randn(4, 3)
    groups = regrow.groups(model, example)
    buffered = next(group.name for group in groups if group.name != "a")
    for criterion in ("taylor", "geometric_median", {"name": "norm", "produced": True}):
        with pytest.raises(RegrowError, match="nothing that this criterion can score"):
            regrow.choose(
                model, groups, 0.5, criterion=criterion,
                loss_fn=lambda m, x: m(x).square().mean(), data=[example],
            )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    program = recipes.one_shot(0.5, 1, pattern="unit")
    pruning = regrow.attach(model, optimizer, program, example=example)
    pruning.epoch_end()
    pruning.finalize()
    assert not pruning.units[buffered].all()
    shrunk = regrow.shrink(model, example, pruning.units, groups=pruning.groups).model
    torch.testing.assert_close(shrunk(example), model(example))


def test_the_geometric_median_goes_by_the_outputs_of_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        model[0].weight[:, :4] = model[0].weight[:, :1]
    groups = regrow.groups(model, torch.randn(1, 8, 4, 4))
    keep = regrow.choose(model, groups, 0.5, of="units", criterion="geometric_median")
    assert keep["0"].tolist() == [False] * 4 + [True] * 4


class Auxiliary(nn.Module):
    """A head that training alone uses, beside a batch norm of one value a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.o, self.aux = (nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 4, 1),
                                    nn.Conv2d(16, 4, 1))  # fmt: skip
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Any:
        hidden = relu(self.c(x))
        out = self.o(self.pool(hidden))
        return (out, self.aux(hidden)) if self.training else out


def test_heads_of_training_are_seen_with_one_sample() -> None:
    model, example = Auxiliary(), torch.randn(1, 3, 8, 8)
    groups = regrow.groups(model, example)
    keep = regrow.choose(model, groups, 0.5)
    shrunk = regrow.shrink(model, example, keep, groups=groups).model.train()
    assert [tuple(y.shape) for y in shrunk(torch.randn(2, 3, 8, 8))] == [
        (2, 4, 1, 1), (2, 4, 8, 8)
    ]  # fmt: skip


def test_half_precision_is_compared_by_its_rounding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 1000)
    ).to(torch.bfloat16)
    groups = regrow.groups(model, torch.randn(32, 64, dtype=torch.bfloat16))
    assert [group.name for group in groups] == ["0", "2"]


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(8, 12)), nn.Parameter(torch.randn(12, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + gelu(x @ self.w1) @ self.w2


def test_branches_of_bare_parameters_leave_whole() -> None:
    model, example = Bare(), torch.randn(3, 8)
    groups = regrow.groups(model, example)
    name = next(group.name for group in groups if len(group) == 12)
    assert name not in groups.needed
    keep = {name: torch.zeros(12, dtype=torch.bool)}
    shrunk = regrow.shrink(model, example, keep, groups=groups).model
    torch.testing.assert_close(shrunk(example), example)


def test_buffers_that_overlap_or_are_spread(tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    shared = torch.randn(5)
    model.register_buffer("spread", torch.ones(1).expand(16))
    assert len(regrow.groups(model, torch.randn(2, 8))) == 1
    del model.spread  # which PyTorch itself cannot load
    model.register_buffer("whole", shared)
    model.register_buffer("part", shared[:2])
    example = torch.randn(2, 8)
    groups = regrow.groups(model, example)
    shrunk = regrow.shrink(model, example, regrow.choose(model, groups, 0.5), groups=groups)
    regrow.save_shrunk(shrunk, tmp_path / "small")
    again = regrow.load_shrunk(model, tmp_path / "small")
    assert torch.equal(again(example), shrunk.model(example))
    assert torch.equal(again.part, shared[:2])


def test_groups_of_another_network_and_state_that_cannot_follow_are_refused() -> None:
    model, other = Net(lambda y: y), Bag()
    example = torch.randn(2, 8)
    groups = regrow.groups(model, example)
    keep = regrow.choose(model, groups, 0.5)
    for use in (
        lambda: regrow.masked(other, keep, groups=groups),
        lambda: regrow.shrink(other, torch.zeros(1, 3, dtype=torch.long), keep, groups=groups),
    ):
        with pytest.raises(RegrowError, match="the groups are of another network"):
            use()
    optimizer = torch.optim.Adafactor(model.parameters())
    model(example).square().mean().backward()
    optimizer.step()
    shrunk = regrow.shrink(model, example, keep, groups=groups)
    with pytest.raises(RegrowError, match=r"Adafactor keeps 'row_var' of a\.weight"):
        shrunk.index_map.optimizer_state(optimizer, model)


def test_layers_that_are_computed_may_stand_beside_groups() -> None:
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 12)), nn.ReLU(), nn.Linear(12, 6),
        nn.ReLU(), nn.Linear(6, 2),
    )  # fmt: skip
    groups = regrow.groups(model, torch.randn(2, 8))
    keep = regrow.choose(model, groups, 0.2)
    assert any(not mask.all() for mask in keep.values())
