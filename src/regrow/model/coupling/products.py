"""Classes that are products of others, of any number of factors; most are of two."""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from regrow.model.coupling.classes import FIXED, PLAIN, PRODUCT, Classes, Dim, Store
from regrow.model.coupling.merged import told_apart


class Products(Store):
    """A store that knows factors, and which classes are fixed."""

    def __init__(self) -> None:
        super().__init__()
        self._reasons: dict[int, str] = {}  # why one is fixed, by root
        self._factors: dict[int, tuple[int, ...]] = {}  # by root
        self._products: dict[tuple[int, ...], int] = {}
        self._pairs = np.zeros((1024, 2), np.int64)  # of products of two, by class; 0, 0 of others

    def _grow(self, size: int) -> None:
        super()._grow(size)
        old, self._pairs = self._pairs, np.zeros((size, 2), np.int64)
        self._pairs[: len(old)] = old

    def _multiply(self, columns: Sequence[Classes]) -> Classes:
        """Products, by row; a fixed factor changes nothing."""
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        single: dict[tuple[int, ...], int] = {}
        kinds = [self._kind[column] for column in columns]
        if any(np.count_nonzero(each == FIXED) for each in kinds):
            rows = [tuple(x for x in row if x not in self._reasons) or row[:1] for row in rows]
            single = {row: row[0] for row in rows if len(row) == 1}
        unlike = dict.fromkeys(rows)
        unmet = not single and not all(np.count_nonzero(self._held[column]) for column in columns)
        if unmet and len(unlike) == len(rows):  # nothing has one of the factors
            return self._made(rows, columns)
        new = [row for row in unlike if row not in self._products and row not in single]
        if new:
            self._made(new, columns)
        known = ChainMap(single, self._products) if single else self._products
        return self.roots(np.fromiter(map(known.__getitem__, rows), np.int64, len(rows)))

    def _made(self, rows: Sequence[tuple[int, ...]], columns: Sequence[Classes]) -> Classes:
        """New products, one for each row of factors."""
        made = self._new(len(rows))
        self._kind[made] = PRODUCT
        for column in columns:
            self._hold(column)
        numbers = made.tolist()
        self._products.update(zip(rows, numbers, strict=True))
        self._factors.update(zip(numbers, rows, strict=True))
        if len(columns) == 2:
            self._pairs[made] = _flat(rows).reshape(-1, 2)
        return made

    def _columns(self, dim: Classes) -> Classes | None:
        """The factors of each index, if all have as many."""
        products = self._kind[dim] == PRODUCT
        if not products.all():
            return None if products.any() else dim[:, None]
        pairs = self._pairs[dim]
        if pairs.any(1).all():
            return self.roots(pairs)
        rows = list(map(self._factors.__getitem__, dim.tolist()))
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
            pairs = self._pairs[gone]
            if pairs.any(1).all():
                times[products], factors = 2, pairs.reshape(-1)
            else:
                rows = list(map(self._factors.__getitem__, gone.tolist()))
                times[products], factors = np.fromiter(map(len, rows), np.int64), _flat(rows)
            places, roots = np.repeat(places, times), np.repeat(roots, times)
            roots[np.repeat(products, times)] = factors
            roots = self.roots(roots)
        free = kinds == PLAIN
        return np.stack([roots[free], places[free]], 1)


def _flat(rows: Sequence[tuple[int, ...]]) -> Classes:
    return np.fromiter(itertools.chain.from_iterable(rows), np.int64)
