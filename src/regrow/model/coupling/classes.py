"""Numbers for indices, and which of them stand for the same: a union-find structure over arrays.

Most equations are of whole dimensions that nothing else has touched. These are noted at once for
all their indices, and the dimensions remember each other, so that the next equation of the two
looks at no index.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        self._run = np.zeros(1024, np.int32)  # the run that each class belongs to; 0 is none
        self._count = 0
        # A run is a dimension of consecutive new classes. Of runs: whether some class equals one
        # that came before it, and whether some product has one as a factor.
        self._touched = np.ones(256, np.bool_)
        self._factor = np.zeros(256, np.bool_)
        self._runs: dict[int, tuple[int, Classes]] = {}  # number and array, by the array's identity
        self._like: dict[int, Classes] = {}  # for an array, one that it equals
        self._alive: dict[int, Classes] = {}  # those of them that are no runs

    def fresh(self, count: int) -> Classes:
        """Classes that are equal to no others."""
        return self.fresh_each([count])[0]

    def fresh_each(self, counts: Sequence[int]) -> list[Classes]:
        """As `fresh`, of several dimensions at once."""
        first, past = len(self._runs) + 1, len(self._runs) + 1 + len(counts)
        if past > len(self._touched):
            self._touched = np.concatenate([self._touched, np.ones(past, np.bool_)])
            self._factor = np.concatenate([self._factor, np.zeros(past, np.bool_)])
        self._touched[first:past] = False
        every = self._new(sum(counts))
        numbers = np.repeat(np.arange(first, past), np.array(counts, np.int64))
        self._run[self._count - len(every) : self._count] = numbers
        found, at = [], 0
        for number, count in enumerate(counts, first):
            part = every[at : at + count]
            self._runs[id(part)] = number, part
            found.append(part)
            at += count
        return found

    def _new(self, count: int) -> Classes:
        """As `fresh`, of which no dimension is made."""
        start, self._count = self._count, self._count + count
        if self._count > len(self._parent):
            self._grow(max(2 * len(self._parent), self._count))
        found = np.arange(start, self._count)
        found.flags.writeable = False
        self._parent[start : self._count] = found
        return found

    def _grow(self, size: int) -> None:
        for name in ("_parent", "_kind", "_held", "_run"):
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
        if _same(above, found):
            return found
        while not _same(above, found):
            found, above = above, self._parent[above]
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

    def _equal(self, dim: Classes, other: Classes) -> None:
        """Remember that two dimensions are equal as wholes; the second stands for both."""
        if dim is not other and id(dim) not in self._like:
            if id(dim) not in self._runs:
                self._alive[id(dim)] = dim
            self._like[id(dim)] = other

    def _point(self, gone: Classes | int, into: Classes | int) -> None:
        """Make roots equal to others."""
        self._parent[gone] = into
        self._touched[self._run[gone]] = True

    def _hold(self, roots: Classes) -> None:
        """Some product has these as factors."""
        self._held[roots] = True
        self._factor[self._run[roots]] = True

    def _join(self, a: Classes, b: Classes) -> Classes | None:
        """Equate dimensions of which one is untouched; None if neither is."""
        first, second = self._untouched(a), self._untouched(b)
        for whole, number, other, known in ((b, second, a, first), (a, first, b, second)):
            if not number:
                continue
            run = slice(whole[0], whole[-1] + 1)
            if not known:
                roots = self.roots(other)
                inside = (roots >= run.start) & (roots < run.stop)
                # A product of itself could not go in parts.
                products = self._factor[number] and (self._kind[roots] == PRODUCT).any()
                if products or inside.any():
                    continue
            else:
                roots = other
            if self._factor[number]:
                self._hold(roots[self._held[run]])
            self._parent[run] = roots
            self._touched[number] = True
            self._like[id(whole)] = other
            return other
        return None

    def _untouched(self, dim: Classes) -> int:
        """The number of a run none of whose classes equals one that came before it, or 0."""
        number = self._runs.get(id(dim), _NONE)[0]
        return 0 if self._touched[number] else number


_NONE = (0, np.zeros(0, np.int64))


def _same(a: Classes, b: Classes) -> bool:
    return a.tobytes() == b.tobytes()  # faster than a comparison, for a few thousand
