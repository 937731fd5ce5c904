"""What units are worth, against removing them one by one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regrow
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.parts.units import UNIT_CRITERIA
from regrow.parts.units.normalise import NORMALISATIONS, normalise


class Net(nn.Module):
    """A residual stream that two convolutions write into, and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.back = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + self.back(F.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    nn.init.uniform_(model.norm.weight, 0.5, 1.5)
    return model


@pytest.fixture
def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 2, 5, 5, generator=generator), torch.randint(3, (4,), generator=generator))
        for _ in range(3)
    ]


def without(net: Net, groups: regrow.Groups, name: str, unit: int) -> nn.Module:
    keep = torch.ones(len(groups[name]), dtype=torch.bool)
    keep[unit] = False
    return regrow.masked(net, {name: keep}, groups=groups)


def scores(net: Net, spec: object, data: list[tuple[Tensor, Tensor]]) -> Mapping[str, Tensor]:
    """As `choose` computes them, with the evidence worked out here."""
    groups = tuple(regrow.groups(net, data[0][0]))
    weights = {name: p.detach() for name, p in net.named_parameters()}
    grads, squares = ({n: torch.zeros_like(w) for n, w in weights.items()} for _ in range(2))
    for batch in data:
        found = torch.autograd.grad(loss_fn(net, batch), list(net.parameters()))
        for name, grad in zip(weights, found, strict=True):
            grads[name] += grad / len(data)
            squares[name] += grad**2 / len(data)
    outputs = {}
    for name in ("stem", "inner", "back", "head"):
        seen: list[Tensor] = []
        hook = net.get_submodule(name).register_forward_hook(lambda m, i, o, s=seen: s.append(o))
        for batch in data:
            net(batch[0])
        hook.remove()
        outputs[f"{name}.weight"] = torch.cat(seen).detach().abs().movedim(1, 0).flatten(1).mean(1)
    evidence = {
        Need("weight"): weights,
        Need("gradient"): grads,
        Need("gradient_square"): squares,
        Need("activation"): outputs,
    }
    return UNIT_CRITERIA.build(spec).score(groups, Evidence(evidence, key=(0, 0)))


def total(model: nn.Module, power: int) -> float:
    return float(sum((p.detach().double().abs() ** power).sum() for p in model.parameters()))


@pytest.mark.parametrize("p", [1, 2])
def test_norm_is_what_goes_with_the_unit(net: Net, data: list, p: int) -> None:
    groups = regrow.groups(net, data[0][0])
    found = scores(net, {"name": "norm", "p": p}, data)
    for group in groups:
        for unit in range(len(group)):
            gone = total(net, p) - total(without(net, groups, group.name, unit), p)
            assert float(found[group.name][unit]) == pytest.approx(gone ** (1 / p), rel=1e-4)


def test_bn_scale_is_what_goes_of_the_scales(net: Net, data: list) -> None:
    with pytest.raises(RegrowError, match="inner passes no normalisation"):
        scores(net, "bn_scale", data)
    groups = tuple(g for g in regrow.groups(net, data[0][0]) if g.name == "stem")
    evidence = Evidence({Need("weight"): {n: p.detach() for n, p in net.named_parameters()}})
    (found,) = UNIT_CRITERIA.build("bn_scale").score(groups, evidence).values()
    torch.testing.assert_close(found, net.norm.weight.detach().abs())


def fade(net: Net, groups: regrow.Groups, name: str, unit: int, rest: float, data: list) -> float:
    """The mean loss with all that computes a unit scaled by `rest`."""
    gone, kept = without(net, groups, name, unit), dict(net.named_parameters())
    produced = {member.name for member in groups[name].produced}
    state = {
        n: p.detach() * (rest if n in produced else 1.0)
        + (gone.get_parameter(n).detach() * (1 - rest) if n in produced else 0.0)
        for n, p in kept.items()
    }
    return float(
        sum(F.cross_entropy(torch.func.functional_call(net, state, (x,)), y) for x, y in data)
        / len(data)
    )


def test_taylor_is_the_slope_of_the_loss_as_the_unit_fades(net: Net, data: list) -> None:
    net.double()
    data = [(x.double(), y) for x, y in data]
    groups, found = regrow.groups(net, data[0][0]), scores(net, "taylor", data)
    for group in groups:
        for unit in range(len(group)):
            here = [fade(net, groups, group.name, unit, 1 + h, data) for h in (-1e-5, 1e-5)]
            slope = abs(here[1] - here[0]) / 2e-5
            assert float(found[group.name][unit]) == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_taylor_summed_cannot_cancel(net: Net, data: list) -> None:
    plain, summed = (
        scores(net, "taylor", data),
        scores(net, {"name": "taylor", "summed": True}, data),
    )
    for name, values in plain.items():
        assert (summed[name] >= values - 1e-7).all()


def test_hessian_by_hand(net: Net, data: list) -> None:
    found = scores(net, "hessian", data)["inner"]
    squares = [torch.zeros(5), torch.zeros(5)]
    for batch in data:
        w, b = torch.autograd.grad(loss_fn(net, batch), [net.inner.weight, net.inner.bias])
        squares[0] += ((w * net.inner.weight) ** 2).detach().flatten(1).sum(1) / 2 / len(data)
        squares[1] += ((b * net.inner.bias) ** 2).detach() / 2 / len(data)
    torch.testing.assert_close(found, squares[0] + squares[1])


def test_geometric_median_by_pairs(net: Net, data: list) -> None:
    found = scores(net, "geometric_median", data)["inner"]
    filters = net.inner.weight.detach()
    pairs = [[float((a - b).norm()) for b in filters] for a in filters]
    torch.testing.assert_close(found, torch.tensor(pairs).sum(1), rtol=1e-4, atol=1e-4)


def test_activation_as_choose_collects_it(net: Net, data: list) -> None:
    groups = regrow.groups(net, data[0][0])
    options = {"criterion": "activation", "loss_fn": loss_fn, "data": data}
    keep = regrow.choose(net, groups, 0.3, **options, normalisation="none")
    expected = scores(net, "activation", data)
    flat = torch.cat([expected[g.name] for g in groups])
    mask = torch.cat([keep[g.name] for g in groups])
    assert flat[mask].min() >= flat[~mask].max()


def test_random_is_random_and_repeats(net: Net, data: list) -> None:
    one, two = scores(net, "random", data), scores(net, "random", data)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert len({float(v) for values in one.values() for v in values}) == 11


def test_normalisations() -> None:
    values = torch.tensor([1.0, 2.0, 5.0])
    assert normalise(values, "none") is values
    assert float(normalise(values, "mean").mean()) == pytest.approx(1)
    assert float(normalise(values, "max").max()) == pytest.approx(1)
    assert float(normalise(values, "sum").sum()) == pytest.approx(1)
    standard = normalise(values, "standard")
    assert float(standard.mean()) == pytest.approx(0, abs=1e-6)
    assert float(standard.std(correction=0)) == pytest.approx(1)
    assert all(torch.isfinite(normalise(torch.zeros(3), name)).all() for name in NORMALISATIONS)
    with pytest.raises(RegrowError, match="normalisation"):
        normalise(values, "men")
