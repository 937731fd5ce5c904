"""Classes that are products of others, of any number of factors; most are of two."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from regrow.model.coupling.classes import FIXED, PLAIN, PRODUCT, Classes, Dim, Store
from regrow.model.coupling.merged import told_apart
from regrow.model.coupling.numbers import Numbers


class Products(Store):
    """A store that knows factors, and which classes are fixed."""

    def __init__(self) -> None:
        super().__init__()
        self._reasons: dict[int, str] = {}  # why one is fixed, by root
        self._pairs = np.zeros((1024, 2), np.int32)  # of products of two, by class; 0, 0 of others
        self._of_two = Numbers()  # the inverse, by `_keys`
        self._factors: dict[int, tuple[int, ...]] = {}  # of products of more, by class
        self._of_more: dict[tuple[int, ...], int] = {}  # its inverse

    def _grow(self, size: int) -> None:
        super()._grow(size)
        old, self._pairs = self._pairs, np.zeros((size, 2), np.int32)
        self._pairs[: len(old)] = old

    def _factors_of(self, root: int) -> tuple[int, ...]:
        """As they were when the product was made; nothing for what is no product."""
        if self._kind[root] != PRODUCT:
            return ()
        return self._factors.get(root) or tuple(self._pairs[root].tolist())

    def _multiply(self, columns: Sequence[Classes]) -> Classes:
        """Products, by row; a fixed factor changes nothing.

        Args:
            columns: roots.
        """
        stack = np.stack(columns, 1)
        free = self._kind[stack] != FIXED
        if free.all():
            return self._product(stack)
        free[:, 0] |= ~free.any(1)
        found, counts = np.empty(len(stack), np.int64), free.sum(1)
        for count in np.unique(counts).tolist():
            rows = counts == count
            factors = stack[rows][free[rows]].reshape(-1, count)
            found[rows] = factors[:, 0] if count == 1 else self._product(factors)
        return self.roots(found)

    def _product(self, rows: Classes) -> Classes:
        """Of as many free factors in each row."""
        if rows.shape[1] > 2:
            return self._of_many(rows)
        keys = _keys(rows)
        unlike, first, back = np.unique(keys, return_index=True, return_inverse=True)
        met = np.count_nonzero(self._held[rows], 0).all()  # or no product has one of the factors
        numbers = self._of_two.get(unlike) if met else np.full(len(unlike), -1)
        new = np.sort(first[numbers < 0])  # in the order of the rows
        made = self._made(rows[new])
        self._pairs[made] = rows[new]
        self._of_two.add(keys[new], made)
        if len(new) == len(rows):
            return made
        numbers[back[new]] = made
        return self.roots(numbers[back])

    def _of_many(self, rows: Classes) -> Classes:
        listed = list(map(tuple, rows.tolist()))
        new = [row for row in dict.fromkeys(listed) if row not in self._of_more]
        numbers = self._made(np.array(new, np.int64).reshape(-1, rows.shape[1])).tolist()
        self._of_more.update(zip(new, numbers, strict=True))
        self._factors.update(zip(numbers, new, strict=True))
        return self.roots(np.fromiter(map(self._of_more.__getitem__, listed), np.int64))

    def _made(self, rows: Classes) -> Classes:
        """New products, one for each row of factors."""
        made = self._new(len(rows))
        self._kind[made] = PRODUCT
        for column in rows.T:
            self._hold(column)
        return made

    def _columns(self, dim: Classes) -> Classes | None:
        """The factors of each index, if all have as many."""
        products = self._kind[dim] == PRODUCT
        if not products.all():
            return None if products.any() else dim[:, None]
        pairs = self._pairs[dim].astype(np.int64)
        if pairs.any(1).all():
            return self.roots(pairs)
        rows = list(map(self._factors_of, dim.tolist()))
        lengths = set(map(len, rows))
        if len(lengths) > 1:
            return None
        return self.roots(_flat(rows).reshape(len(rows), *lengths))

    def _recover(self, columns: Classes, sizes: Sequence[int]) -> list[Dim] | None:
        """The dimensions that were merged, if each factor depends on one of them alone."""
        found = told_apart(columns, sizes)
        if found is None:
            return None
        return [
            None if not parts else parts[0] if len(parts) == 1 else self._multiply(parts)
            for parts in found
        ]

    def _rows(self, dim: Classes) -> npt.NDArray[np.int64]:
        """(class, index) for the classes that indices go with; see `Indices.going`."""
        roots, places = self.roots(dim), np.arange(len(dim))
        while np.count_nonzero(products := (kinds := self._kind[roots]) == PRODUCT):
            times = np.ones(len(roots), np.int64)
            gone = roots[products]
            pairs = self._pairs[gone].astype(np.int64)
            if pairs.any(1).all():
                times[products], factors = 2, pairs.reshape(-1)
            else:
                rows = list(map(self._factors_of, gone.tolist()))
                times[products], factors = np.fromiter(map(len, rows), np.int64), _flat(rows)
            places, roots = np.repeat(places, times), np.repeat(roots, times)
            roots[np.repeat(products, times)] = factors
            roots = self.roots(roots)
        free = kinds == PLAIN
        return np.stack([roots[free], places[free]], 1)


def _keys(rows: Classes) -> Classes:
    """A number for each pair, which no other has; there are fewer than 2^31 classes."""
    keys: Classes = rows[:, 0] << 32 | rows[:, 1]
    return keys


def _flat(rows: Sequence[tuple[int, ...]]) -> Classes:
    return np.fromiter(itertools.chain.from_iterable(rows), np.int64)
