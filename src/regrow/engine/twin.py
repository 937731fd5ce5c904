"""A second network of the same code, made quickly."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from regrow.model.walk import modules_of

_SHARED = (int, float, complex, str, bytes, bool, type(None))


def twin(model: nn.Module, tensors: Mapping[int, Any]) -> nn.Module:
    """A copy, as `copy.deepcopy` makes it, with tensors of its own.

    Args:
        model: stays as it is.
        tensors: what stands in the copy for each of its tensors, by identity.
    """
    memo: dict[int, Any] = dict(tensors)
    modules = [module for _, module in modules_of(model)]
    if any(_copies_itself(type(module)) for module in modules):
        return copy.deepcopy(model, memo)
    for module in modules:
        memo[id(module)] = type(module).__new__(type(module))
    for module in modules:
        own = memo[id(module)].__dict__
        for name, value in nn.Module.__getstate__(module).items():  # without what is compiled
            own[name] = _copied(value, memo)
    made: nn.Module = memo[id(model)]
    return made


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Most of what modules hold are plain values and dictionaries of what is copied already."""
    if type(value) in _SHARED or (type(value) is tuple and all(type(x) in _SHARED for x in value)):
        return value
    known = memo.get(id(value))
    if known is not None:
        return known
    if type(value) is OrderedDict and not value:
        return OrderedDict()
    if type(value) is not dict:
        return copy.deepcopy(value, memo)
    made = memo[id(value)] = {}
    for key, each in value.items():
        made[key] = _copied(each, memo)
    return made


def _copies_itself(kind: type) -> bool:
    """Whether a class has its own way to be copied, other than layers of PyTorch."""
    if kind.__module__.startswith("torch.nn.modules."):
        return False
    names = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
    slots = any("__slots__" in vars(base) for base in kind.__mro__ if base is not object)
    return slots or any(_own(kind, name) for name in names)


def _own(kind: type, name: str) -> bool:
    """Whether a class, and not one of PyTorch's that it extends, defines a method."""
    for base in kind.__mro__:
        if base is object or base.__module__.startswith("torch.nn.modules."):
            return False
        if name in vars(base):
            return True
    return False
