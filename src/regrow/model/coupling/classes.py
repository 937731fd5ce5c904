"""Numbers for indices, and which of them stand for the same: a union-find structure over arrays.

Most equations are of whole dimensions that nothing else has touched. These are noted at once for
all their indices, and the dimensions remember each other, so that the next equation of the two
looks at no index.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Classes: TypeAlias = "npt.NDArray[np.int64]"
Dim: TypeAlias = "Classes | None"
"""The classes of a dimension's indices; None where all of them are fixed."""

PLAIN, FIXED, PRODUCT = range(3)


class Store:
    """Classes, their kinds, and the dimensions that are equal as wholes."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, np.int64)
        self._kind = np.zeros(1024, np.int8)  # of roots
        self._held = np.zeros(1024, np.bool_)  # of roots, whether some product has it as a factor
        self._count = 0
        self._runs: dict[int, Classes] = {}  # arrays of consecutive new classes, by identity
        self._like: dict[int, Classes] = {}  # for such an array, one that it equals

    def fresh(self, count: int) -> Classes:
        """Classes that are equal to no others."""
        start, self._count = self._count, self._count + count
        if self._count > len(self._parent):
            self._grow(max(2 * len(self._parent), self._count))
        found = np.arange(start, self._count)
        found.flags.writeable = False
        self._parent[start : self._count] = found
        self._runs[id(found)] = found
        return found

    def _grow(self, size: int) -> None:
        for name in ("_parent", "_kind", "_held"):
            old = getattr(self, name)
            new = np.zeros(size, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    @property
    def count(self) -> int:
        """Of all classes."""
        return self._count

    def roots(self, classes: Classes) -> Classes:
        """The number that stands for each class and all that equal it."""
        found = self._parent[classes]
        above = self._parent[found]
        if not (above != found).any():
            return found
        while True:
            found, above = above, self._parent[above]
            if not (above != found).any():
                break
        self._parent[classes] = found
        return found

    def root(self, one: int) -> int:
        while (above := int(self._parent[one])) != one:
            one = above
        return one

    def shared(self, dim: Classes) -> Classes:
        """One array for all dimensions that are known to be equal as wholes."""
        found = dim
        while (above := self._like.get(id(found))) is not None:
            found = above
        if found is not dim:
            self._like[id(dim)] = found
        return found

    def _join(self, a: Classes, b: Classes) -> Classes | None:
        """Equate dimensions of which one is untouched; None if neither is."""
        for whole, other in ((b, a), (a, b)):
            if not self._untouched(whole):
                continue
            roots, run = self.roots(other), slice(whole[0], whole[-1] + 1)
            inside = (roots >= run.start) & (roots < run.stop)
            held = self._held[run]
            # A product of itself could not go in parts.
            if inside.any() or (held.any() and (self._kind[roots] == PRODUCT).any()):
                continue
            self._held[roots[held]] = True
            self._parent[run] = roots
            self._like[id(whole)] = other
            return other
        return None

    def _untouched(self, dim: Classes) -> bool:
        """Whether these are new classes, none of which equals one that came before it."""
        if id(dim) not in self._runs:
            return False
        return not (self._parent[dim[0] : dim[-1] + 1] != dim).any()
