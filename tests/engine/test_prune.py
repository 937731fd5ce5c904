"""One call, one cut: exact counts, and refusals before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_small import WEIGHTS, batches, loss_fn, network, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regrow
from regrow.bench.models import digits_cnn, resnet20
from regrow.parts.patterns.block import Block
from regrow.parts.patterns.nm import NofM


def naive(model: nn.Module) -> tuple[int, int]:
    """Weights of Conv and Linear that are not zero, and all of them."""
    kept = total = 0
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            kept += sum(1 for value in module.weight.flatten().tolist() if value != 0)
            total += module.weight.numel()
    return kept, total


@settings(max_examples=25, deadline=None)
@given(
    sparsity=st.floats(0, 0.99),
    criterion=st.sampled_from(["magnitude", "lamp", "random"]),
    allocation=st.sampled_from(["global", "uniform", "erk"]),
)
def test_exact_count(sparsity: float, criterion: str, allocation: str) -> None:
    model = network()
    dense = {name: model.get_parameter(name).clone() for name in WEIGHTS}
    report = regrow.prune(model, sparsity, criterion=criterion, allocation=allocation)
    assert naive(model) == (round((1 - sparsity) * 572), 572) == (report.kept, report.total)
    for name, before in dense.items():
        after = model.get_parameter(name)
        assert torch.equal(after, before * (after != 0))


def test_global_magnitude_is_a_threshold() -> None:
    model = network()
    every = torch.cat([model.get_parameter(n).flatten().abs() for n in WEIGHTS])
    threshold = every.sort(descending=True).values[round(0.2 * 572) - 1]
    expected = {n: model.get_parameter(n).abs() >= threshold for n in WEIGHTS}
    regrow.prune(model, 0.8)
    assert all(torch.equal(model.get_parameter(n) != 0, expected[n]) for n in WEIGHTS)


def test_ties_meet_the_target() -> None:
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    for layer in model:
        nn.init.constant_(layer.weight, 0.5)
    assert regrow.prune(model, 0.37).kept == naive(model)[0] == 126


def test_resnet20_in_one_call() -> None:
    model = resnet20(10)
    untouched = {n: t.clone() for n, t in model.state_dict().items() if t.ndim < 2}
    report = regrow.prune(model, 0.9)
    assert report.total == 268_336
    assert report.kept == naive(model)[0] == round(0.1 * 268_336)
    assert same(untouched, {n: t for n, t in model.state_dict().items() if t.ndim < 2})
    assert str(report).splitlines()[-2].split()[1:] == ["26,834", "268,336", "0.9000"]


def test_sparsities_by_layer() -> None:
    model = network()
    report = regrow.prune(model, {"4": 0.9, "6.weight": 0.25, "*": 0.5})
    assert {x.name: x.kept for x in report.layers} == {
        "0.weight": 18,
        "4.weight": 51,
        "6.weight": 18,
    }


def test_sparsities_by_layer_do_not_reach_excluded_layers() -> None:
    model = network()
    report = regrow.prune(model, {"4": 0.9, "*": 0.5}, exclude=("0",))
    assert {x.name: x.kept for x in report.layers} == {
        "0.weight": 36,
        "4.weight": 51,
        "6.weight": 12,
    }


def test_two_of_four() -> None:
    model = nn.Sequential(nn.Conv2d(8, 4, 3), nn.Linear(16, 6))
    report = regrow.prune(model, 0.5, pattern="n_of_m")
    assert report.sparsity == 0.5
    for layer, axis in ((model[0], 1), (model[1], 1)):
        groups = (layer.weight != 0).movedim(axis, -1).unflatten(-1, (-1, 4)).sum(-1)
        assert (groups == 2).all()
    with pytest.raises(regrow.RegrowError, match=r"0\.weight of shape .*1 inputs are no multiple"):
        regrow.prune(network(), 0.5, pattern=NofM(2, 4))


def test_blocks() -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 4))
    regrow.prune(model, 0.75, pattern=Block(4, 2))
    for layer in model:
        tiles = (layer.weight != 0).unflatten(0, (-1, 4)).unflatten(2, (-1, 2)).sum((1, 3))
        assert set(tiles.flatten().tolist()) <= {0, 8}
    assert naive(model)[0] == 40


@pytest.mark.parametrize("criterion", ["taylor", "saliency"])
def test_gradient_criteria_against_autograd(criterion: str) -> None:
    model, data = network(), batches(3)
    model.eval()
    weights = {n: model.get_parameter(n) for n in WEIGHTS}
    found: list[tuple[Tensor, ...]] = []
    for batch in data:
        model.zero_grad()
        loss_fn(model, batch).backward()
        found.append(tuple(w.grad.clone() for w in weights.values()))
    model.zero_grad(set_to_none=True)
    model.train()
    scores = []
    for index, weight in enumerate(weights.values()):
        grads = torch.stack([grads[index] for grads in found])
        w = weight.detach()
        score = (grads.mean(0) * w).abs() if criterion == "taylor" else grads**2 * w**2
        scores.append((score if criterion == "taylor" else score.mean(0)).flatten())
    every = torch.cat(scores)
    expected = torch.zeros(572, dtype=torch.bool)
    expected[every.argsort(descending=True, stable=True)[: round(0.3 * 572)]] = True
    regrow.prune(model, 0.7, criterion=criterion, loss_fn=loss_fn, data=data)
    kept = torch.cat([(w != 0).flatten() for w in weights.values()])
    # Rounding may swap two scores at the threshold, no more.
    assert int((kept ^ expected).sum()) <= 2
    assert all(p.grad is None for p in model.parameters())
    assert model.training


def with_nan() -> nn.Module:
    model = network()
    with torch.no_grad():
        model[4].weight[0, :3] = float("nan")
    return model


def parametrised() -> nn.Module:
    model = network()
    nn.utils.parametrizations.weight_norm(model[6])
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any], str]] = {
    "percent": (network, (90,), {}, r"got 90\. For 90 % write 0\.9"),
    "one": (network, (1.0,), {}, r"in \[0, 1\); got 1\.0"),
    "negative": (network, (-0.1,), {}, r"got -0\.1"),
    "nan": (network, (float("nan"),), {}, r"got nan"),
    "text": (network, ("0.9",), {}, r"got '0\.9'"),
    "nan weights": (with_nan, (0.5,), {}, r"4\.weight of shape \(8, 64\) holds 3 NaN"),
    "nothing": (lambda: nn.Sequential(nn.ReLU()), (0.5,), {}, "Sequential has no convolution"),
    "parametrised": (parametrised, (0.5,), {}, r"6\.weight of .*Linear is computed"),
    "lazy": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(2)),
        (0.5,),
        {},
        r"1\.weight has no shape yet",
    ),
    "floor": (network, (0.9,), {"floor": 30}, "floors"),
    "typo": (digits_cnn, (0.9,), {"exclude": ("hiden",)}, "'hiden'. Did you mean 'hidden'"),
    "all excluded": (network, (0.9,), {"exclude": ("*",)}, "leave no layer"),
    "out of reach": (network, (0.9,), {"exclude": ("4",)}, "out of reach"),
    "criterion": (network, (0.9,), {"criterion": "magnitud"}, "Did you mean 'magnitude'"),
    "no data": (network, (0.9,), {"criterion": "taylor"}, "loss_fn and data"),
    "no loss": (network, (0.9,), {"criterion": "taylor", "data": [1]}, "loss_fn and data"),
    "empty data": (
        network,
        (0.9,),
        {"criterion": "taylor", "loss_fn": loss_fn, "data": []},
        "gave no batch",
    ),
    "vector loss": (
        network,
        (0.9,),
        {"criterion": "taylor", "loss_fn": lambda m, b: m(b[0]), "data": batches(1)},
        r"must return a scalar.*\(8, 3\)",
    ),
    "layer emptied": (network, ({"6": 0.999, "*": 0.5},), {}, "would empty layer '6'"),
    "layer unnamed": (network, ({"6": 0.5},), {}, "no sparsity is given for layer '0'"),
    "layer typo": (network, ({"five": 0.5, "*": 0.5},), {}, "unknown layer 'five'"),
    "two allocations": (network, ({"*": 0.5},), {"allocation": "erk"}, "leave it out"),
    "2:4 density": (
        lambda: nn.Sequential(nn.Linear(8, 8)),
        (0.3,),
        {"pattern": "n_of_m"},
        "more than the 32 that can be kept",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_written(case: str) -> None:
    build, arguments, options, message = REFUSED[case]
    model = build()
    bits = [p.detach().clone().view(torch.int32) for p in model.parameters() if _shaped(p)]
    with pytest.raises(regrow.RegrowError, match=message):
        regrow.prune(model, *arguments, **options)
    after = [p.detach().view(torch.int32) for p in model.parameters() if _shaped(p)]
    assert all(torch.equal(a, b) for a, b in zip(bits, after, strict=True))
    assert all(module.training for module in model.modules())


def _shaped(parameter: nn.Parameter) -> bool:
    return not isinstance(parameter, nn.parameter.UninitializedParameter)


def test_wrapped_and_half_precision_models() -> None:
    model = network().to(torch.bfloat16)
    report = regrow.prune(torch.compile(model, backend="eager"), 0.8)
    assert report.kept == naive(model)[0] == round(0.2 * 572)
    assert [layer.name for layer in report.layers] == list(WEIGHTS)
    again = regrow.prune(model, 0.9)
    assert again.kept == naive(model)[0] == round(0.1 * 572)
