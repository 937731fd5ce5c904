"""Synaptic flow: against an explicit copy, its conservation law, and a network left alone."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regrow.bench.models import resnet20
from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.engine.gather import Source, gather
from regrow.model.flow import flow
from regrow.model.inventory import inventory, weights_of


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    return weights_of(model, inventory(model))


def scores(model: nn.Module, example: Any) -> dict[str, Tensor]:
    found = flow(model, weights(model), example)
    return {n: w.detach().double().abs() * found[n] for n, w in weights(model).items()}


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    nn.init.normal_(model[1].weight)  # type: ignore[arg-type]
    nn.init.normal_(model[1].bias)  # type: ignore[arg-type]
    model[1].running_var.fill_(2.0)  # type: ignore[operator, union-attr]
    return model


def test_as_by_a_copy_with_absolute_weights() -> None:
    model, example = convolutions(), torch.randn(2, 2, 6, 6)
    found = flow(model, weights(model), example)
    twin = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.abs_()
    twin(torch.ones(2, 2, 6, 6, dtype=torch.float64)).sum().backward()
    for name in found:
        torch.testing.assert_close(found[name], twin.get_parameter(name).grad)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(0, 99))
def test_in_a_chain_without_biases_every_layer_carries_the_whole_flow(
    widths: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=False), nn.ReLU()]
    model = nn.Sequential(*layers)
    sums = [float(found.sum()) for found in scores(model, torch.zeros(1, widths[0])).values()]
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-12)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_it_was(fails: bool, training: bool) -> None:
    model = resnet20(generator=torch.Generator().manual_seed(0)).train(training)
    model.get_parameter("conv1.weight").requires_grad_(False)
    model.conv1.eval()  # type: ignore[union-attr, operator]
    before = {n: t.clone() for n, t in model.state_dict(keep_vars=True).items()}
    own = {
        n: (id(t), t.data_ptr(), t.requires_grad)
        for n, t in model.state_dict(keep_vars=True).items()
    }
    modes = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(RegrowError, match=r"float64 on ones of the example's shape"):
            flow(model, weights(model), torch.zeros(1, 4, 8, 8))
    else:
        flow(model, weights(model), torch.zeros(1, 3, 32, 32))
    after = model.state_dict(keep_vars=True)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name])
        assert (id(tensor), tensor.data_ptr(), tensor.requires_grad) == own[name]
        assert tensor.grad is None
    assert [module.training for module in model.modules()] == modes


class Tied(nn.Module):
    """Tokens in, one matrix twice, a mapping out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, scale: Tensor) -> dict[str, Any]:
        hidden = self.body(self.embed(tokens)) * scale
        return {"logits": self.head(hidden), "tokens": tokens, "more": [hidden]}


def test_tied_weights_tokens_and_several_outputs() -> None:
    torch.manual_seed(0)
    model = Tied()
    tokens = torch.tensor([[1, 2, 6]])
    found = flow(model, weights(model), (tokens, torch.randn(1, 3, 4)))
    assert set(found) == {"body.weight", "head.weight"}
    embed = model.embed.weight.detach().double().abs().requires_grad_()
    body = model.body.weight.detach().double().abs().requires_grad_()
    bias = model.body.bias.detach().double().abs()
    hidden = embed[tokens] @ body.T + bias
    ((hidden @ embed.T).sum() + hidden.sum()).backward()
    torch.testing.assert_close(found["head.weight"], embed.grad)
    torch.testing.assert_close(found["body.weight"], body.grad)


def test_deep_networks_overflow_in_float64_only() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(*(nn.Linear(300, 300, bias=False) for _ in range(60)))
    found = scores(deep, torch.zeros(1, 300))
    assert min(float(each.sum()) for each in found.values()) > torch.finfo(torch.float32).max
    with torch.no_grad():
        for parameter in deep.parameters():
            parameter.mul_(1e5)
    with pytest.raises(RegrowError, match=r"through 0\.weight of shape \(300, 300\) is not finite"):
        flow(deep, weights(deep), torch.zeros(1, 300))


def test_without_an_example_it_is_refused_and_without_data_it_is_not() -> None:
    model = convolutions()
    needs = frozenset({Need("flow")})
    with pytest.raises(RegrowError, match="pass example="):
        Source().check(needs)
    source = Source(example=torch.zeros(1, 2, 6, 6))
    found = gather(needs, model, inventory(model), {}, source, (0,), "running")
    assert found[Need("flow")]["0.weight"].dtype == torch.float64
    with pytest.raises(RegrowError, match="pass loss_fn and data"):
        source.check(needs | {Need("gradient")})
