"""A table from whole numbers to whole numbers that takes little memory and many keys at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.int64]


class Numbers:
    """Sorted arrays, each at least twice as long as the next, so that there are few."""

    def __init__(self) -> None:
        self._parts: list[tuple[_Array, _Array]] = []

    def get(self, keys: _Array) -> _Array:
        """What was added for each key; -1 for others."""
        found = np.full(len(keys), -1)
        for known, numbers in self._parts:
            places = np.searchsorted(known, keys)
            places[places == len(known)] = 0
            here = known[places] == keys
            found[here] = numbers[places[here]]
        return found

    def add(self, keys: _Array, numbers: _Array) -> None:
        """Different keys, none of which is there yet."""
        if not len(keys):
            return
        while self._parts and len(self._parts[-1][0]) < 2 * len(keys):
            more, theirs = self._parts.pop()
            keys, numbers = np.concatenate([more, keys]), np.concatenate([theirs, numbers])
        order = np.argsort(keys)
        self._parts.append((keys[order], numbers[order]))
