"""Tensors in what a network takes and gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten


def tensors_of(nest: Any) -> list[Tensor]:
    """Those in any nest of collections, mappings and dataclasses, and directly in other objects."""
    if isinstance(nest, Tensor):
        return [nest]
    if type(nest) is tuple and all(isinstance(each, Tensor) for each in nest):
        return list(nest)
    found: list[Tensor] = []
    _collect(nest, found, set())
    return found


def _collect(nest: Any, found: list[Tensor], seen: set[int]) -> None:
    for each in tree_flatten(nest)[0]:
        if isinstance(each, Tensor):
            found.append(each)
        elif id(each) not in seen and not isinstance(each, (nn.Module, type, str, bytes)):
            seen.add(id(each))
            for part in _parts(each):
                _collect(part, found, seen)


def _parts(each: Any) -> list[Any]:
    """What an object holds that PyTorch knows nothing of."""
    if isinstance(each, Mapping):
        return list(each.values())
    if isinstance(each, (Sequence, Set)):
        return list(each)
    if is_dataclass(each):
        return [getattr(each, one.name) for one in fields(each)]
    slots = [name for kind in type(each).__mro__ for name in getattr(kind, "__slots__", ())]
    held = [getattr(each, name) for name in slots if hasattr(each, name)]
    # No deeper: caches keep what is no output.
    every = [*held, *getattr(each, "__dict__", {}).values()]
    return [one for one in every if isinstance(one, Tensor)]
