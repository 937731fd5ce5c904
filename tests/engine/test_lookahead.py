"""Lookahead against loops, folded norms, dense twins, and measured distortion of products."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lookahead_example import (
    by_loop,
    close,
    columns,
    evidence,
    ones,
    randomise,
    rows,
    scale,
    squares,
)
from torch import Tensor, nn

from regrow.bench.models import digits_cnn, resnet20
from regrow.core.errors import RegrowError
from regrow.parts.criteria.lookahead import Lookahead
from regrow.parts.criteria.magnitude import Magnitude


def chain(*sizes: int, seed: int = 0) -> nn.Sequential:
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)]
    model = nn.Sequential(*layers)
    randomise(model, seed)
    return model


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=4, max_size=6), st.integers(0, 99))
def test_the_square_is_the_distortion_of_the_product_of_three(sizes: list[int], seed: int) -> None:
    model = chain(*sizes, seed=seed)
    found = squares(model, torch.randn(2, sizes[0]))
    every = [layer.weight.detach().double() for layer in model]
    whole = [torch.eye(sizes[0]).double(), *every, torch.eye(sizes[-1]).double()]
    whole = [each.double() for each in whole]
    for i, weight in enumerate(every, 1):
        before = whole[i - 1] if i > 1 else torch.eye(weight.shape[1]).double()
        after = whole[i + 1] if i < len(every) else torch.eye(weight.shape[0]).double()
        for j in range(weight.shape[0]):
            for k in range(weight.shape[1]):
                less = weight.clone()
                less[j, k] = 0
                change = after @ weight @ before - after @ less @ before
                close(found[f"{i - 1}.weight"][j, k], change.square().sum())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_rescaling_between_two_layers_moves_magnitude_but_not_lookahead(seed: int) -> None:
    model = nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.Linear(4, 3)
    )
    randomise(model, seed)
    x = torch.randn(3, 6)
    before, outputs = evidence(model, x), model(x)
    first, by_size = Lookahead().score(before), Magnitude().score(before)
    by_size = {name: score.clone() for name, score in by_size.items()}
    factor = torch.exp2(torch.randint(-6, 7, (7,)).float())  # exact in floating point
    factor[0], factor[1] = 64, 1 / 64
    with torch.no_grad():
        model[2].weight *= factor[:, None]
        model[2].bias *= factor
        model[4].weight /= factor
    torch.testing.assert_close(model(x), outputs)
    found = evidence(model, x)
    again, moved = Lookahead().score(found), Magnitude().score(found)
    for name in ("2.weight", "4.weight"):
        torch.testing.assert_close(again[name], first[name], rtol=1e-12, atol=0)
        assert (moved[name].flatten().argsort() != by_size[name].flatten().argsort()).any()


def test_one_linear_layer_alone_ranks_by_magnitude() -> None:
    model = randomise(nn.Sequential(nn.Linear(9, 7)))
    found = evidence(model, torch.randn(1, 9))
    ranked = Lookahead().score(found)["0.weight"].flatten().argsort()
    assert torch.equal(ranked, Magnitude().score(found)["0.weight"].flatten().argsort())


class Named(nn.Module):
    """Convolutions, norms, flatten and linear layers in an order that is not that of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.wide = nn.Linear(5 * 2 * 3, 6)
        self.norm1d = nn.BatchNorm1d(5 * 2 * 3)
        self.second = nn.Conv2d(4, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = self.norm1d(torch.flatten(self.second(x).relu(), 1))
        out: Tensor = self.last(torch.sigmoid(self.wide(x)))
        return out


@pytest.mark.parametrize("norms", [True, False])
def test_convolutions_norms_flatten_and_linear_layers_by_loop(norms: bool) -> None:
    model = randomise(Named())
    assert isinstance(model, Named)
    found = squares(model, torch.randn(1, 2, 2, 3), norms)
    first, second, wide, last = (
        each.weight for each in (model.first, model.second, model.wide, model.last)
    )
    r = scale(model.norm).square() if norms else ones(4)
    flat = scale(model.norm1d).square() if norms else ones(30)
    close(found["first.weight"], by_loop(first, ones(2), r * columns(second)))
    read = (flat * columns(wide)).view(5, 6).sum(1)  # 2 x 3 columns of each channel
    close(found["second.weight"], by_loop(second, r * rows(first), read))
    computed = flat * rows(second).repeat_interleave(6)
    close(found["wide.weight"], by_loop(wide, computed, columns(last)))
    close(found["last.weight"], by_loop(last, rows(wide), ones(3)))


def test_norms_count_as_if_folded_into_a_layer_and_the_one_before() -> None:
    """The norm behind the layer that reads a weight's output does not count, as in the paper."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
    )
    randomise(model)
    x = torch.randn(1, 1, 8, 8)
    found = squares(model, x)
    folded = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3)).double()
    with torch.no_grad():
        factor = scale(model[1])[:, None, None, None]
        folded[0].weight.copy_(model[0].weight * factor)
        folded[2].weight.copy_(model[3].weight)
        close(squares(folded, x.double())["0.weight"], found["0.weight"])
        folded[2].weight *= scale(model[4])[:, None, None, None]
        close(squares(folded, x.double())["2.weight"], found["3.weight"])


class Digits(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.c = nn.ConvTranspose2d(8, 4, 2, groups=2 if groups > 1 else 1)
        self.d = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.d(self.c(self.b(self.a(x).relu()).relu()))
        return out


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_grouped_and_depthwise_equal_their_dense_twins(groups: int) -> None:
    model, dense = randomise(Digits(groups)), Digits(1)
    assert isinstance(model, Digits)
    blocks = {}
    with torch.no_grad():
        for name in "abcd":
            source, into = getattr(model, name), getattr(dense, name).weight
            split = source.groups
            into.zero_()
            mine, theirs = source.weight.shape[0] // split, source.weight.shape[1]
            mask = torch.zeros_like(into, dtype=torch.bool)
            for g in range(split):
                mine_at = slice(g * mine, (g + 1) * mine)
                theirs_at = slice(g * theirs, (g + 1) * theirs)
                into[mine_at, theirs_at] = source.weight[mine_at]
                mask[mine_at, theirs_at] = True
            blocks[f"{name}.weight"] = mask
    x = torch.randn(1, 3, 4, 4)
    found, expected = squares(model, x), squares(dense, x)
    for name, mask in blocks.items():
        close(found[name].flatten(), expected[name][mask])


def stream(model: nn.Module, residual: str, norms: bool) -> dict[str, Tensor]:
    """ResNet-20's scores from its definition: what the stream holds, and who reads it."""
    modules: Any = model
    blocks = [*modules.layer1, *modules.layer2, *modules.layer3]
    names = [f"layer{s}.{i}" for s in (1, 2, 3) for i in range(3)]

    def r(norm: Any) -> Tensor:
        return scale(norm).square() if norms else ones(norm.num_features)

    writers = [(modules.conv1.weight, r(modules.bn1))]
    writers += [(b.conv2.weight, r(b.bn2)) for b in blocks]
    readers = [b.conv1.weight for b in blocks] + [modules.linear.weight]
    found = {}

    def before(reader: int) -> Tensor:
        total = torch.zeros(readers[reader].shape[1]).double()
        for weight, factor in writers[: reader + 1]:
            total[: len(factor)] += rows(weight) * factor
        # One past the reader's first join; the channels all come by it.
        return total + (1 if residual == "identity" and reader > 0 else 0)

    def after(writer: int) -> Tensor:
        weight, factor = writers[writer]
        total = torch.zeros(weight.shape[0]).double()
        for reader in readers[writer:]:
            total += columns(reader)[: len(total)] * factor
        return total + (1 if residual == "identity" else 0)

    found["conv1.weight"] = by_loop(writers[0][0], ones(3), after(0))
    for i, (name, block) in enumerate(zip(names, blocks, strict=True)):
        inner = r(block.bn1)
        one, two = block.conv1.weight, block.conv2.weight
        found[f"{name}.conv1.weight"] = by_loop(one, before(i), inner * columns(two))
        found[f"{name}.conv2.weight"] = by_loop(two, inner * rows(one), after(i + 1))
    found["linear.weight"] = by_loop(readers[-1], before(9), ones(10))
    return found


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("residual", ["sum", "identity"])
def test_resnet20_by_its_definition(residual: str, norms: bool) -> None:
    model = randomise(resnet20())
    found = squares(model, torch.randn(1, 3, 32, 32), norms, residual)
    expected = stream(model, residual, norms)
    assert found.keys() == expected.keys()
    for name, square in expected.items():
        close(found[name], square)


class Projected(nn.Module):
    """A block whose shortcut is a convolution, then one whose shortcut is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 1)
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.short = nn.Conv2d(3, 4, 1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        y = self.one(x)
        y += self.short(x)
        x = self.act(y)
        out: Tensor = self.head(self.act(self.two(x) + x).mean((2, 3)))
        return out


@pytest.mark.parametrize("residual", ["sum", "identity"])
def test_a_projection_is_no_identity(residual: str) -> None:
    model = randomise(Projected())
    assert isinstance(model, Projected)
    found = squares(model, torch.randn(1, 1, 5, 5), residual=residual)
    stem, one, short, two, head = (
        each.weight for each in (model.stem, model.one, model.short, model.two, model.head)
    )
    past = 1 if residual == "identity" else 0
    close(found["stem.weight"], by_loop(stem, ones(1), columns(one) + columns(short)))
    for name, weight in (("one", one), ("short", short)):
        read = columns(two) + columns(head) + past
        close(found[f"{name}.weight"], by_loop(weight, rows(stem), read))
    close(found["two.weight"], by_loop(two, rows(one) + rows(short), columns(head) + past))
    computed = rows(one) + rows(short) + rows(two) + past
    close(found["head.weight"], by_loop(head, computed, ones(2)))


class Joined(nn.Module):
    """Concatenation, a shared weight, and a network that gives back what it also uses."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 2)
        self.square, self.c = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([self.a(x), torch.tanh(self.b(x))], 1)
        twice = self.square(self.square(both).relu()).relu()
        return self.c(twice), twice


def test_concatenation_and_shared_weights() -> None:
    model = randomise(Joined())
    assert isinstance(model, Joined)
    found = squares(model, torch.randn(2, 3))
    a, b, square, c = (each.weight for each in (model.a, model.b, model.square, model.c))
    close(found["a.weight"], by_loop(a, ones(3), columns(square)[:4]))
    close(found["b.weight"], by_loop(b, ones(3), columns(square)[4:]))
    first = by_loop(square, torch.cat([rows(a), rows(b)]), columns(square))
    close(found["square.weight"], first + by_loop(square, rows(square), columns(c)))
    close(found["c.weight"], by_loop(c, rows(square), ones(5)))


def test_refuse_names_the_layers_beside_sums_and_the_shared_ones() -> None:
    for model, x, names in (
        (Projected(), torch.randn(1, 1, 5, 5), ("one.weight", "two.weight", "head.weight")),
        (Joined(), torch.randn(2, 3), ("square.weight",)),
    ):
        with pytest.raises(RegrowError, match="refuse") as error:
            evidence(model, x, Lookahead(residual="refuse"))
        assert all(name in str(error.value) for name in names)
    evidence(digits_cnn(), torch.randn(1, 1, 8, 8), Lookahead(residual="refuse"))
    with pytest.raises(RegrowError, match="none of sum, identity, refuse"):
        Lookahead(residual="product")  # type: ignore[arg-type]


def test_scores_of_any_scale_are_finite_and_layers_have_norm_one() -> None:
    model = chain(20, 30, 30, 5)
    with torch.no_grad():
        for layer, factor in zip(model, (1e-30, 1e25, 1e-37), strict=True):
            layer.weight *= factor
    found = Lookahead().score(evidence(model, torch.randn(1, 20)))
    for score in found.values():
        assert score.dtype == torch.float64
        assert score.isfinite().all()
        assert float(score.norm()) == pytest.approx(1)


def test_a_network_whose_neighbours_have_gone_scores_zero() -> None:
    model = chain(3, 4, 2)
    with torch.no_grad():
        model[1].weight.zero_()
    found = Lookahead().score(evidence(model, torch.randn(1, 3)))
    assert not found["0.weight"].any()
    assert not found["1.weight"].any()
