"""Names of modules and tensors, and what is kept of tensors: against PyTorch's own lists."""

from __future__ import annotations

import torch
from torch import nn

from regrow.model.coupling.by_tensor import ByTensor
from regrow.model.walk import modules_of, named_tensors


def shared() -> nn.Module:
    """A layer in two places, tied weights, a missing child and buffers of both kinds."""
    layer, norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
    model = nn.Sequential(nn.Sequential(layer, norm), layer, nn.Linear(3, 3), nn.Sequential(norm))
    model[2].weight = layer.weight
    model.register_module("none", None)
    model[3].register_buffer("own", torch.zeros(2), persistent=False)
    return model


def test_modules_are_those_of_pytorch_in_its_order() -> None:
    model = shared()
    assert modules_of(model) == list(model.named_modules())
    every = list(model.named_modules(remove_duplicate=False))
    assert modules_of(model, again=True) == every
    assert len(every) > len(modules_of(model))


def test_tensors_are_those_of_pytorch_in_its_order() -> None:
    model = shared()
    theirs = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    found = named_tensors(model)
    assert list(found) == [name for name, _ in theirs]
    assert all(found[name] is tensor for name, tensor in theirs)


def test_a_value_is_its_tensors_alone() -> None:
    known: ByTensor[int] = ByTensor()
    one, other = torch.zeros(2), torch.zeros(2)
    known[one] = 1
    assert (known.get(one), known.get(other)) == (1, None)
    known[one] = 2
    assert known.get(one) == 2
    for i in range(50):  # places in memory are taken again
        new = torch.zeros(2)
        assert known.get(new) is None
        known[new] = i
        assert known.get(new) == i
        del new
