"""Quick copies of networks are what `copy.deepcopy` makes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrow.engine.twin import twin


class Around(nn.Module):
    """Modules, functions and sizes where networks keep them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.again = self.first  # one module under two names
        self.listed = [self.first, nn.ReLU()]  # not registered
        self.sizes = {"heads": (2, 3), "width": [6]}
        self.act = self.activate
        self.register_buffer("table", torch.arange(6.0))

    def activate(self, x: Tensor) -> Tensor:
        return x + self.table

    def forward(self, x: Tensor) -> Tensor:
        return self.listed[1](self.act(self.listed[0](x)))


class Careful(nn.Linear):
    """Has its own way to be copied."""

    copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Careful:
        made = Careful(4, 6)
        made.weight, made.bias = (memo[id(each)] for each in (self.weight, self.bias))
        made.copies = self.copies + 1
        return made


def _tensors(model: nn.Module) -> dict[int, Any]:
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach() + 1) for p in model.parameters()}
    memo.update((id(buffer), buffer + 1) for buffer in model.buffers())
    return memo


@pytest.mark.parametrize("make", [Around, lambda: nn.Sequential(Around(), nn.Linear(6, 2))])
def test_a_twin_is_a_deep_copy_with_other_tensors(make: Any) -> None:
    model, x = make(), torch.randn(3, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    memo = _tensors(model)
    made, wanted = twin(model, memo), copy.deepcopy(model, dict(memo))
    assert torch.equal(made(x), wanted(x))
    assert list(made.state_dict()) == list(before)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    own = {id(each) for each in (*model.modules(), *model.parameters(), *model.buffers())}
    assert not own & {id(each) for each in (*made.modules(), *made.parameters(), *made.buffers())}


def test_what_is_not_a_tensor_is_not_shared_either() -> None:
    model = Around()
    made = twin(model, _tensors(model))
    assert made.again is made.first is made.listed[0]
    assert made.act.__self__ is made
    made.sizes["width"][0] = 5
    made.register_forward_hook(lambda *_: None)
    assert model.sizes["width"] == [6]
    assert not model._forward_hooks


def test_a_class_that_copies_itself_does() -> None:
    model = nn.Sequential(Careful(4, 6))
    assert twin(model, _tensors(model))[0].copies == 1
