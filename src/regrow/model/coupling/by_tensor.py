"""What is known of tensors, for as long as each of them lives."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class ByTensor(Generic[T]):
    """Values by tensor, which is found by its identity and not kept alive.

    A place in memory may be another tensor's later, so that a value is its tensor's alone.
    Lighter than `WeakTensorKeyDictionary` of PyTorch: values stay when their tensors are gone,
    until the place is taken.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], T]] = {}

    def get(self, tensor: Tensor) -> T | None:
        """None of a tensor that is not known."""
        known = self._known.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def __setitem__(self, tensor: Tensor, value: T) -> None:
        self._known[id(tensor)] = weakref.ref(tensor), value
