"""Which indices of which dimensions stand or fall together.

Every index of every dimension of a tensor has a number, its *class*. Operations equate classes: the
channels of a sum are the channels of its summands. A class may be a *product* of others, where
dimensions were merged or split: channel k of 768 is (head k // 64, position k % 64). An index goes
as soon as any factor of its class goes. Classes that no network could lose, such as pixels of the
example, are *fixed*, each with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.model.coupling.classes import FIXED, PLAIN, PRODUCT, Classes, Dim
from regrow.model.coupling.products import Products

__all__ = ["TIED", "Classes", "Dim", "Indices"]

TIED = "tied to a size of the example or of the code"
_MOST = 1 << 22  # indices of a merged dimension that are kept apart
_DISAGREE = "split in two ways that do not agree"


class Indices(Products):
    """Equations over classes, with products and fixed ones."""

    def __init__(self) -> None:
        super().__init__()
        self._last = np.zeros(0, np.int32)  # by class, where it was met in the latest list
        self._fixed: dict[str, int] = {}  # its inverse
        # What is known until the next change, by array, which is kept with it.
        self._going: dict[int, tuple[Classes, npt.NDArray[np.int64]]] = {}
        self._merged: dict[tuple[Any, ...], Classes] = {}  # by the roots of what was merged

    def fix(self, dim: Dim, reason: str) -> None:
        """None of these indices can go."""
        if dim is None:
            return
        self._changes()
        number = self._untouched(dim)
        if number:
            self._parent[dim[0] : dim[-1] + 1] = self._reason(reason)
            self._touched[number] = True
            return
        roots = self.roots(dim)
        kinds = self._kind[roots]
        self._point(roots[kinds == PLAIN], self._reason(reason))
        if (kinds == PRODUCT).any():
            for one in np.unique(roots[kinds == PRODUCT]).tolist():
                self._fix(one, reason)

    def equate(self, a: Dim, b: Dim) -> Dim:
        """Indices of two dimensions of one length are the same; gives back their classes."""
        if a is None or b is None:
            self.fix(a if b is None else b, TIED)
            return None
        a, b = self.shared(a), self.shared(b)
        if a is b:
            return a
        self._changes()
        joined = self._join(a, b)
        if joined is not None:
            return joined
        first, second = self.roots(a), self.roots(b)
        different = first != second
        if different.any():
            x, y = self._spread(first[different], second[different])
            if not len(x) or not (self._at_once(x, y) or self._products_at_once(x, y)):
                for one, other in zip(x.tolist(), y.tolist(), strict=True):
                    self._union(one, other)
            first = self.roots(first)
        self._equal(a, first)
        self._equal(b, first)
        return first

    def merge(self, dims: Sequence[Dim], sizes: Sequence[int], reason: str) -> Dim:
        """The classes of several dimensions seen as one, in C order."""
        live = [i for i, dim in enumerate(dims) if dim is not None and sizes[i] > 1]
        for i, dim in enumerate(dims):
            if i not in live:
                self.fix(dim, reason)
        total = math.prod(sizes)
        if not live:
            return None
        if total > _MOST:
            for i in live:
                self.fix(dims[i], f"{reason} over {total} indices")
            return None
        if len(live) == 1 and total == sizes[live[0]]:
            return dims[live[0]]
        roots = [self.roots(_given(dims[i])) for i in live]
        key = (*live, *sizes, *(each.tobytes() for each in roots))
        if key not in self._merged:
            columns = []
            for i, each in zip(live, roots, strict=True):
                shape = [1] * len(sizes)
                shape[i] = sizes[i]
                columns.append(np.broadcast_to(each.reshape(shape), sizes).reshape(-1))
            self._merged[key] = columns[0] if len(columns) == 1 else self._multiply(columns)
        return self.roots(self._merged[key])

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
        parts: list[Dim] = [self.fresh(size) if size > 1 else None for size in sizes]
        self.equate(dim, self.merge(parts, sizes, TIED))
        return parts

    def simple(self, dim: Classes) -> bool:
        """Whether no index is a product: each is fixed, or goes with its root alone."""
        return not np.count_nonzero(self._kind[self.roots(dim)] == PRODUCT)

    def going(self, dim: Classes) -> npt.NDArray[np.int64]:
        """Rows of (class, index) for the classes that indices go with, in the order of indices."""
        dim = self.shared(dim)
        known = self._going.get(id(dim))
        if known is None:
            known = self._going[id(dim)] = dim, self._rows(dim)
        return known[1]

    def reason(self, one: int) -> str | None:
        """Why an index of this class cannot go: None if it can."""
        one = self.root(one)
        if one in self._reasons:
            return self._reasons[one]
        reasons = [self.reason(factor) for factor in self._factors_of(one)]
        return reasons[0] if reasons and all(each is not None for each in reasons) else None

    def factors(self, one: int) -> tuple[int, ...]:
        """Those of a product, as roots; of any other class nothing."""
        return tuple(self.root(each) for each in self._factors_of(self.root(one)))

    def _changes(self) -> None:
        self._going.clear()

    def _spread(self, x: Classes, y: Classes) -> tuple[Classes, Classes]:
        """What is plain beside what is fixed is fixed too; the pairs that are left."""
        a, b = self._kind[x], self._kind[y]
        right, left = (a == FIXED) & (b == PLAIN), (a == PLAIN) & (b == FIXED)
        self._changes()
        self._point(y[right], x[right])
        self._point(x[left], y[left])
        rest = ~(right | left | ((a == FIXED) & (b == FIXED)))
        return self.roots(x[rest]), self.roots(y[rest])

    def _at_once(self, x: Classes, y: Classes) -> bool:
        """Unite pairs of different classes without looking at each, if nothing can go wrong."""
        a, b = self._kind[x], self._kind[y]
        if ((a != PLAIN) & (b != PLAIN)).any() or not self._distinct(np.concatenate([x, y])):
            return False
        swap = (a == PLAIN) & (b != PLAIN)
        x, y = np.where(swap, y, x), np.where(swap, x, y)
        products = x[self._kind[x] == PRODUCT]
        if len(products) and self._held[y].any():  # A product of itself could not go in parts.
            parts = self._parts(products)
            if parts is None or np.isin(y, parts).any():
                return False
        self._unite(y, x)
        return True

    def _unite(self, gone: Classes, into: Classes) -> None:
        """Different roots become others' equals."""
        self._hold(into[self._held[gone]])
        self._point(gone, into)

    def _parts(self, products: Classes) -> Classes | None:
        """The plain classes that products are made of; None if anything is fixed."""
        columns = self._columns(products)
        if columns is None:
            return None
        factors = np.unique(columns)
        kinds = self._kind[factors]
        if (kinds == FIXED).any():
            return None
        inner, plain = factors[kinds == PRODUCT], factors[kinds == PLAIN]
        deeper = self._parts(inner) if len(inner) else inner
        return None if deeper is None else np.concatenate([plain, deeper])

    def _products_at_once(self, x: Classes, y: Classes) -> bool:
        """Unite pairs of products of as many plain factors: the factors are the same."""
        if not ((self._kind[x] == PRODUCT) & (self._kind[y] == PRODUCT)).all():
            return False
        x, y = np.unique(np.stack([x, y], 1), axis=0).T
        if not self._distinct(np.concatenate([x, y])):
            return False
        one, other = self._columns(x), self._columns(y)
        if one is None or other is None or one.shape != other.shape:
            return False
        if self._kind[one].any() or self._kind[other].any():
            return False
        self._changes()
        self._unite(y, x)
        for a, b in zip(one.T, other.T, strict=True):
            self.equate(a, b)
        return True

    def _distinct(self, classes: Classes) -> bool:
        if len(self._last) < self._count:
            self._last = np.zeros(len(self._parent), np.int32)
        places = np.arange(len(classes))
        self._last[classes] = places
        return bool((self._last[classes] == places).all())

    def _fix(self, one: int, reason: str) -> None:
        one = self.root(one)
        if one in self._reasons:
            return
        factors = self._factors_of(one)
        for factor in factors:
            self._fix(factor, reason)
        if factors:
            return
        self._point(one, self._reason(reason))

    def _reason(self, reason: str) -> int:
        """The class of all that is fixed for a reason."""
        if reason not in self._fixed:
            one = int(self._new(1)[0])
            self._fixed[reason], self._reasons[one], self._kind[one] = one, reason, FIXED
        return self._fixed[reason]

    def _union(self, a: int, b: int) -> None:
        self._changes()
        a, b = self._reduced(a), self._reduced(b)
        if a == b:
            return
        if a in self._reasons or b in self._reasons:
            reason = self._reasons.get(a) or self._reasons[b]
            self._fix(a, reason)
            self._fix(b, reason)
            return
        if self._holds(a, b) or self._holds(b, a):  # a product of itself could only go as a whole
            self._fix(a, _DISAGREE)
            self._fix(b, _DISAGREE)
            return
        if self._kind[b] != PRODUCT:
            a, b = b, a
        if self._kind[a] != PRODUCT:
            self._unite(np.array([a]), np.array([b]))
            return
        first, second = (
            [each for each in self._factors_of(one) if self.reason(each) is None] for one in (a, b)
        )
        self._unite(np.array([b]), np.array([a]))
        if len(first) != len(second):
            for factor in (*first, *second):
                self._fix(factor, _DISAGREE)
            return
        for x, y in zip(first, second, strict=True):
            self._union(x, y)

    def _reduced(self, one: int) -> int:
        """A root, or the one factor of a product that is not fixed."""
        one = self.root(one)
        while factors := self._factors_of(one):
            free = [each for each in factors if self.reason(each) is None]
            if len(free) > 1:
                return one
            one = self.root(free[0] if free else factors[0])
        return one

    def _holds(self, product: int, one: int) -> bool:
        return any(
            self.root(factor) == one or self._holds(self.root(factor), one)
            for factor in self._factors_of(product)
        )


def _given(dim: Dim) -> Classes:
    assert dim is not None
    return dim
