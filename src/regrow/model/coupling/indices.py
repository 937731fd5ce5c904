"""Which indices of which dimensions stand or fall together.

Every index of every dimension of a tensor has a number, its *class*. Operations equate classes: the
channels of a sum are the channels of its summands. A class may be a *product* of others, where
dimensions were merged or split: channel k of 768 is (head k // 64, position k % 64). An index goes
as soon as any factor of its class goes. Classes that no network could lose, such as pixels of the
example, are *fixed*, each with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Classes: TypeAlias = "npt.NDArray[np.int64]"
Dim: TypeAlias = "Classes | None"
"""The classes of a dimension's indices; None where all of them are fixed."""

TIED = "tied to a size of the example or of the code"
_MOST = 1 << 22  # indices of a merged dimension that are kept apart
_DISAGREE = "split in two ways that do not agree"


class Indices:
    """A union-find structure over classes, with products."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, np.int64)
        self._plain = np.ones(1024, np.bool_)  # of roots: neither fixed nor a product
        self._count = 0
        self._reasons: dict[int, str] = {}  # by root
        self._fixed: dict[str, int] = {}  # its inverse
        self._factors: dict[int, tuple[int, ...]] = {}  # by root
        self._products: dict[tuple[int, ...], int] = {}
        self._leaves: dict[int, tuple[int, ...]] = {}  # what is known until the next change

    def fresh(self, count: int) -> Classes:
        """Classes that are equal to no others."""
        start, self._count = self._count, self._count + count
        if self._count > len(self._parent):
            more = np.zeros(max(2 * len(self._parent), self._count), np.int64)
            more[:start] = self._parent[:start]
            self._parent = more
            self._plain = np.append(self._plain, np.ones(len(more) - len(self._plain), np.bool_))
        found = np.arange(start, self._count)
        self._parent[start : self._count] = found
        return found

    def roots(self, classes: Classes) -> Classes:
        """The number that stands for each class and all that equal it."""
        found = self._parent[classes]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parent[classes] = found
        return found

    def root(self, one: int) -> int:
        while (above := int(self._parent[one])) != one:
            one = above
        return one

    def fix(self, dim: Dim, reason: str) -> None:
        """None of these indices can go."""
        if dim is None:
            return
        roots = self.roots(dim)
        plain = self._plain[roots]
        self._leaves.clear()
        self._parent[roots[plain]] = self._reason(reason)
        for one in np.unique(roots[~plain]):
            self._fix(int(one), reason)

    def equate(self, a: Dim, b: Dim) -> Dim:
        """Indices of two dimensions of one length are the same; gives back their classes."""
        if a is None or b is None:
            self.fix(a if b is None else b, TIED)
            return None
        if a is b:
            return a
        first, second = self.roots(a), self.roots(b)
        different = first != second
        if not different.any():
            return first
        x, y = first[different], second[different]
        if (self._plain[x] | self._plain[y]).all() and len(np.unique([x, y])) == 2 * len(x):
            swap = self._plain[x] & ~self._plain[y]
            x, y = np.where(swap, y, x), np.where(swap, x, y)
            columns = self._columns(x)  # A product of itself could not go in parts.
            if columns is not None and not np.isin(y, columns).any() and self._atoms(columns, x):
                self._leaves.clear()
                self._parent[y] = x
                return self.roots(first)
        for one, other in zip(x.tolist(), y.tolist(), strict=True):
            self._union(one, other)
        return self.roots(first)

    def merge(self, dims: Sequence[Dim], sizes: Sequence[int], reason: str) -> Dim:
        """The classes of several dimensions seen as one, in C order."""
        live = [i for i, dim in enumerate(dims) if dim is not None and sizes[i] > 1]
        for i, dim in enumerate(dims):
            if i not in live:
                self.fix(dim, reason)
        total = int(np.prod(sizes, dtype=np.int64))
        if not live:
            return None
        if total > _MOST:
            for i in live:
                self.fix(dims[i], f"{reason} over {total} indices")
            return None
        columns = []
        for i in live:
            shape = [1] * len(sizes)
            shape[i] = sizes[i]
            spread = np.broadcast_to(self.roots(_given(dims[i])).reshape(shape), sizes)
            columns.append(spread.reshape(-1))
        return columns[0] if len(columns) == 1 else self._multiply(columns)

    def split(self, dim: Dim, sizes: Sequence[int]) -> list[Dim]:
        """The classes of several dimensions into which one is cut, in C order."""
        wide = [i for i, size in enumerate(sizes) if size > 1]
        if dim is None or not wide:
            return [None] * len(sizes)
        if len(wide) == 1:
            return [dim if i == wide[0] else None for i in range(len(sizes))]
        dim = self.roots(dim)
        columns = self._columns(dim)
        found = self._recover(columns, sizes) if columns is not None else None
        if found is not None:
            return found
        parts = [self.fresh(size) if size > 1 else None for size in sizes]
        self.equate(dim, self.merge(parts, sizes, TIED))
        return [None if part is None else self.roots(part) for part in parts]

    def plain(self, dim: Classes) -> bool:
        """Whether each index goes with one class alone, which is its root."""
        return bool(self._plain[self.roots(dim)].all())

    def leaves(self, one: int) -> tuple[int, ...]:
        """The classes that an index goes with, in the order of dimensions; none if it is fixed."""
        one = self.root(one)
        if one in self._reasons:
            return ()
        if one not in self._factors:
            return (one,)
        if one not in self._leaves:
            factors = self._factors[one]
            self._leaves[one] = tuple(leaf for factor in factors for leaf in self.leaves(factor))
        return self._leaves[one]

    def reason(self, one: int) -> str | None:
        """Why an index of this class cannot go: None if it can."""
        one = self.root(one)
        if one in self._reasons:
            return self._reasons[one]
        reasons = [self.reason(factor) for factor in self._factors.get(one, ())]
        return reasons[0] if reasons and all(each is not None for each in reasons) else None

    def factors(self, one: int) -> tuple[int, ...]:
        """Those of a product, as roots; of any other class nothing."""
        return tuple(self.root(each) for each in self._factors.get(self.root(one), ()))

    def _fix(self, one: int, reason: str) -> None:
        one = self.root(one)
        if one in self._reasons:
            return
        factors = self._factors.get(one)
        if factors is not None:
            for factor in factors:
                self._fix(factor, reason)
            return
        self._parent[one] = self._reason(reason)

    def _reason(self, reason: str) -> int:
        """The class of all that is fixed for a reason."""
        if reason not in self._fixed:
            one = int(self.fresh(1)[0])
            self._fixed[reason], self._reasons[one], self._plain[one] = one, reason, False
        return self._fixed[reason]

    def _union(self, a: int, b: int) -> None:
        self._leaves.clear()
        a, b = self.root(a), self.root(b)
        if a == b:
            return
        if a in self._reasons or b in self._reasons:
            reason = self._reasons.get(a) or self._reasons[b]
            self._fix(a, reason)
            self._fix(b, reason)
            return
        if a in self._factors and b not in self._factors:
            a, b = b, a
        if a not in self._factors:
            if self._holds(b, a):  # a product of itself could only go as a whole
                self._fix(b, _DISAGREE)
            else:
                self._parent[a] = b
            return
        first, second = self._factors[a], self._factors.pop(b)
        self._parent[b] = a
        if len(first) != len(second):
            for factor in (*first, *second):
                self._fix(factor, _DISAGREE)
            return
        for x, y in zip(first, second, strict=True):
            self._union(x, y)

    def _atoms(self, columns: Classes, dim: Classes) -> bool:
        """Whether no factor is a product itself, and no class fixed."""
        return bool(self._plain[columns].all()) and not any(
            int(one) in self._reasons for one in np.unique(dim[~self._plain[dim]])
        )

    def _holds(self, product: int, one: int) -> bool:
        return any(
            self.root(factor) == one or self._holds(self.root(factor), one)
            for factor in self._factors.get(product, ())
        )

    def _multiply(self, columns: Sequence[Classes]) -> Classes:
        """Products, by row; a fixed factor changes nothing."""
        table = np.stack(columns, 1)
        unique, inverse = np.unique(table, axis=0, return_inverse=True)
        found = np.empty(len(unique), np.int64)
        for i, row in enumerate(unique):
            factors = tuple(int(each) for each in row if int(each) not in self._reasons)
            if len(factors) < 2:
                found[i] = factors[0] if factors else row[0]
                continue
            if factors not in self._products:
                one = int(self.fresh(1)[0])
                self._products[factors], self._factors[one] = one, factors
                self._plain[one] = False
            found[i] = self._products[factors]
        return self.roots(found[inverse.reshape(-1)])

    def _columns(self, dim: Classes) -> Classes | None:
        """The factors of each index, if all have as many."""
        if self._plain[dim].all():
            return dim[:, None]
        unique, inverse = np.unique(dim, return_inverse=True)
        rows = [self.factors(int(one)) or (int(one),) for one in unique]
        if len({len(row) for row in rows}) > 1:
            return None
        return np.array(rows, np.int64)[inverse.reshape(-1)]

    def _recover(self, columns: Classes, sizes: Sequence[int]) -> list[Dim] | None:
        """The dimensions that were merged, if each factor depends on one of them alone."""
        found: list[list[Classes]] = [[] for _ in sizes]
        for column in columns.T:
            grid = column.reshape(sizes)
            for i in range(len(sizes)):
                others = tuple(j for j in range(len(sizes)) if j != i)
                along = grid[tuple(slice(None) if j == i else 0 for j in range(len(sizes)))]
                if (grid == np.expand_dims(along, others)).all():
                    found[i].append(along)
                    break
            else:
                return None
        return [
            None if not parts else parts[0] if len(parts) == 1 else self._multiply(parts)
            for parts in found
        ]


def _given(dim: Dim) -> Classes:
    assert dim is not None
    return dim
