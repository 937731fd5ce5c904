"""Channels that come back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import regrow
from regrow.bench.models import digits_cnn
from regrow.core.errors import RegrowError
from regrow.model.walk import named_tensors

X = torch.randn(2, 1, 8, 8)


def net(seed: int = 0) -> nn.Module:
    return digits_cnn(generator=torch.Generator().manual_seed(seed)).eval()


def test_all_that_went_comes_back_as_it_was() -> None:
    dense = net()
    groups = regrow.groups(dense, X)
    keep = regrow.choose(dense, groups, 0.6, of="macs")
    small = regrow.shrink(dense, X, keep, groups=groups)
    full = {group.name: torch.ones(len(group), dtype=torch.bool) for group in groups}
    grown = regrow.grow(small, dense, X, full, groups=groups)
    for name, tensor in named_tensors(grown.model).items():
        assert torch.equal(tensor, named_tensors(dense)[name])


def test_trained_values_stay_and_dense_ones_return() -> None:
    dense = net()
    groups = regrow.groups(dense, X)
    first = regrow.choose(dense, groups, 0.7, of="macs")
    small = regrow.shrink(dense, X, first, groups=groups)
    with torch.no_grad():
        for parameter in small.model.parameters():
            parameter.add_(1)
    second = regrow.choose(dense, groups, 0.4, of="macs", alive=first)
    assert all(bool((second[name] | ~first[name]).all()) for name in first)
    assert groups.macs(second) <= 0.6 * groups.macs()
    grown = regrow.grow(small, dense, X, second, groups=groups)
    assert sum(p.numel() for p in grown.model.parameters()) == groups.parameters(second)
    lived, lives = first["conv1"].nonzero().flatten(), second["conv1"].nonzero().flatten()
    before, now = dense.conv1.weight, grown.model.conv1.weight
    for place, unit in enumerate(lives.tolist()):
        moved = 1.0 if unit in lived else 0.0
        torch.testing.assert_close(now[place], before[unit] + moved)
    # What lies between one that stayed and one that returned is the dense network's.
    new = [i for i, unit in enumerate(lives.tolist()) if unit not in lived]
    outs = second["conv2"].nonzero().flatten()
    if new:
        torch.testing.assert_close(
            grown.model.conv2.weight[:, new], dense.conv2.weight[outs][:, lives[new]]
        )


def test_alive_units_go_last_in_every_scope() -> None:
    dense = net()
    groups = regrow.groups(dense, X)
    first = regrow.choose(dense, groups, 0.6, criterion="random", seed=1)
    for scope in ("global", "local", "isomorphic"):
        more = regrow.choose(dense, groups, 0.3, scope=scope, alive=first)
        less = regrow.choose(dense, groups, 0.8, scope=scope, alive=first)
        assert all(bool((more[name] | ~first[name]).all()) for name in first)
        assert all(bool((first[name] | ~less[name]).all()) for name in first)


def test_a_network_of_another_kind_is_refused() -> None:
    dense = net()
    groups = regrow.groups(dense, X)
    keep = regrow.choose(dense, groups, 0.5)
    other = regrow.choose(dense, groups, 0.5, criterion="random")
    one = regrow.shrink(dense, X, keep, groups=groups)
    two = regrow.shrink(dense, X, other, groups=groups)
    mixed = regrow.Shrunk(one.model, two.index_map, two.edits)
    with pytest.raises(RegrowError, match="of another one"):
        regrow.grow(mixed, dense, X, keep, groups=groups)
