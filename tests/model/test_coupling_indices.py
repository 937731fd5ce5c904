"""Classes of indices: equivalence, products, and no removal that an equation forbids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.model.coupling import indices as module
from regrow.model.coupling.indices import Classes, Dim, Indices
from regrow.model.coupling.numbers import Numbers

SIZES = st.sampled_from([(2, 3), (3, 2), (2, 2), (4, 3), (2, 2, 3), (3, 1, 2), (1, 4)])


def live(dim: Dim) -> Classes:
    assert dim is not None
    return dim


def same(ways: Indices, a: Dim, b: Dim) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(ways.roots(a), ways.roots(b))


def leaves(ways: Indices, dim: Dim, size: int) -> list[set[int]]:
    """For each index, what it goes with; nothing if it is fixed."""
    if dim is None:
        return [set()] * size
    rows = ways.going(dim)
    return [set(rows[rows[:, 1] == index, 0].tolist()) for index in range(size)]


def going(ways: Indices, dim: Dim, size: int, gone: set[int]) -> list[bool]:
    return [bool(each & gone) for each in leaves(ways, dim, size)]


@settings(max_examples=100, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12),
    orders=st.randoms(use_true_random=False),
)
def test_equate_is_an_equivalence(pairs: list[tuple[int, int]], orders: object) -> None:
    """Against sets that are joined by hand; any permutation of indices may be equated."""
    ways = Indices()
    dims = [ways.fresh(4) for _ in range(6)]
    sets = [{i} for i in range(24)]
    for a, b in pairs:
        order = orders.sample(range(4), 4)  # type: ignore[attr-defined]
        ways.equate(dims[a], dims[b][order])
        for i, j in enumerate(order):
            one, other = sets[4 * a + i], sets[4 * b + j]
            if one is not other:
                one |= other
                for each in other:
                    sets[each] = one
    flat = ways.roots(np.concatenate(dims))
    for i in range(24):
        for j in range(24):
            assert (flat[i] == flat[j]) == (sets[i] is sets[j])


@settings(max_examples=50, deadline=None)
@given(sizes=SIZES)
def test_merged_then_split_are_the_same_dimensions(sizes: tuple[int, ...]) -> None:
    ways = Indices()
    dims = [ways.fresh(n) if n > 1 else None for n in sizes]
    merged = ways.merge(dims, sizes, "merged")
    assert len(live(merged)) == math.prod(sizes)
    found = ways.split(merged, sizes)
    assert all(same(ways, a, b) for a, b in zip(dims, found, strict=True))


@settings(max_examples=50, deadline=None)
@given(sizes=SIZES)
def test_split_then_merged_is_the_same_dimension(sizes: tuple[int, ...]) -> None:
    ways = Indices()
    dim = ways.fresh(math.prod(sizes))
    parts = ways.split(dim, sizes)
    assert same(ways, ways.merge(parts, sizes, "merged"), dim)
    again = ways.split(dim, sizes)
    assert all(same(ways, a, b) for a, b in zip(parts, again, strict=True))


@settings(max_examples=50, deadline=None)
@given(sizes=SIZES, first=st.booleans())
def test_splits_of_equated_dimensions_agree(sizes: tuple[int, ...], first: bool) -> None:
    """Whether they are equated before they are split or after."""
    ways = Indices()
    a, b = ways.fresh(math.prod(sizes)), ways.fresh(math.prod(sizes))
    if first:
        ways.equate(a, b)
    p, q = ways.split(a, sizes), ways.split(b, sizes)
    if not first:
        ways.equate(a, b)
    assert all(same(ways, x, y) for x, y in zip(p, q, strict=True))
    assert all(leaves(ways, a, len(a)))


@settings(max_examples=50, deadline=None)
@given(sizes=st.sampled_from([(2, 3), (4, 2), (2, 3, 2)]), data=st.data())
def test_an_index_goes_with_any_of_its_factors(sizes: tuple[int, ...], data: st.DataObject) -> None:
    """By brute force over the coordinates."""
    ways = Indices()
    dims = [ways.fresh(n) for n in sizes]
    merged = live(ways.merge(dims, sizes, "merged"))
    removed = [data.draw(st.sets(st.integers(0, n - 1), max_size=n - 1)) for n in sizes]
    gone = {
        int(one)
        for dim, out in zip(dims, removed, strict=True)
        for one in ways.roots(dim[list(out)])
    }
    expected = [any(at[i] in removed[i] for i in range(len(sizes))) for at in np.ndindex(*sizes)]
    assert going(ways, merged, len(merged), gone) == expected


@pytest.mark.parametrize("which", [0, 1])
def test_a_fixed_factor_leaves_the_other(which: int) -> None:
    ways = Indices()
    dims = [ways.fresh(2), ways.fresh(3)]
    merged = live(ways.merge(dims, [2, 3], "merged"))
    ways.fix(dims[which], "for the test")
    grid = np.array([len(each) for each in leaves(ways, merged, 6)])
    assert (grid == 1).all()
    assert ways.reason(int(dims[which][0])) == "for the test"
    assert ways.reason(int(merged[0])) is None
    ways.fix(dims[1 - which], "as well")
    assert not any(leaves(ways, merged, 6))
    assert ways.reason(int(merged[0])) in ("for the test", "as well")


def test_fixing_a_product_fixes_its_factors() -> None:
    ways = Indices()
    dims = [ways.fresh(2), ways.fresh(3)]
    merged = live(ways.merge(dims, [2, 3], "merged"))
    ways.fix(merged[:1], "for the test")
    assert [bool(each) for each in leaves(ways, dims[0], 2)] == [False, True]
    assert [bool(each) for each in leaves(ways, dims[1], 3)] == [False, True, True]


def test_a_dimension_of_fixed_size_fixes_what_equals_it() -> None:
    ways = Indices()
    dim = ways.fresh(3)
    assert ways.equate(dim, None) is None
    assert ways.equate(None, None) is None
    assert ways.reason(int(dim[1])) == module.TIED
    assert ways.merge([None, None], [2, 3], "merged") is None
    assert ways.split(None, [2, 3]) == [None, None]


def test_a_product_whose_factor_was_fixed_equals_the_other() -> None:
    """(heads, size of a head) where the size cannot change is heads, however it was come by."""
    ways = Indices()
    heads, size = ways.fresh(3), ways.fresh(2)
    early = live(ways.merge([heads, size], [3, 2], "merged"))
    ways.fix(size, "for the test")
    late = live(ways.merge([heads, size], [3, 2], "merged"))
    ways.equate(early, late)
    assert [
        each == {int(h)} for each, h in zip(leaves(ways, early, 6), heads.repeat(2), strict=True)
    ]
    assert all(leaves(ways, early, 6))
    assert leaves(ways, early, 6) == leaves(ways, late, 6)


def test_one_fixed_of_three_factors_leaves_two() -> None:
    ways = Indices()
    dims = [ways.fresh(2) for _ in range(3)]
    early = live(ways.merge(dims, [2, 2, 2], "merged"))
    ways.fix(dims[2], "for the test")
    late = live(ways.merge(dims, [2, 2, 2], "merged"))
    ways.equate(early, late)
    assert [len(each) for each in leaves(ways, early, 8)] == [2] * 8
    assert leaves(ways, early, 8) == leaves(ways, late, 8)


def test_a_product_of_itself_is_fixed() -> None:
    """n = (m, c) and n = m could only hold if c never went."""
    ways = Indices()
    a, b, c = ways.fresh(2), ways.fresh(2), ways.fresh(2)
    inner = live(ways.merge([a, b], [2, 2], "merged"))
    outer = live(ways.merge([inner, c], [4, 2], "merged"))
    ways.equate(outer[:4], inner)
    assert leaves(ways, inner, 4) == leaves(ways, outer[:4], 4)


def test_too_many_indices_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    ways = Indices()
    dims = [ways.fresh(4), ways.fresh(3)]
    assert ways.merge(dims, [4, 3], "merged") is None
    assert ways.reason(int(dims[0][0])) == "merged over 12 indices"
    assert ways.merge([ways.fresh(5), ways.fresh(2)], [5, 2], "merged") is not None


class Program:
    """Random operations, and the equations that must hold at the end."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self.ways, self.draw = Indices(), draw
        self.dims: list[tuple[Dim, int]] = []
        self.laws: list[Callable[[Callable[[Dim, int], np.ndarray]], bool]] = []

    def pick(self, fits: Callable[[int], bool] = lambda size: True) -> tuple[Dim, int] | None:
        some = [each for each in self.dims if fits(each[1])]
        return some[self.draw(st.integers(0, len(some) - 1))] if some else None

    def step(self) -> None:
        what = self.draw(st.integers(0, 7))
        if what == 0 or not self.dims:
            size = (2, 3, 4, 6, 12)[self.draw(st.integers(0, 4))]
            self.dims.append((self.ways.fresh(size), size))
        elif what in (1, 2):
            self.merge()
        elif what in (3, 4):
            self.split()
        elif what in (5, 6):
            self.equate()
        elif self.draw(st.integers(0, 3)) == 0:
            dim, size = self.dims[self.draw(st.integers(0, len(self.dims) - 1))]
            self.ways.fix(dim, "for the test")
            self.laws.append(lambda gone: not gone(dim, size).any())
        else:
            self.halves()

    def merge(self) -> None:
        a = self.pick(lambda size: size <= 12)
        b = self.pick(lambda size: a is not None and size * a[1] <= 24)
        if a is None or b is None:
            return
        sizes = (a[1], b[1])
        merged, total = self.ways.merge([a[0], b[0]], sizes, "merged"), a[1] * b[1]
        self.dims.append((merged, total))
        self.product(merged, total, [a, b])

    def split(self) -> None:
        one = self.pick(lambda size: size in (4, 6, 12, 24))
        if one is None:
            return
        ways = [(n, one[1] // n) for n in range(2, one[1]) if one[1] % n == 0]
        sizes = ways[self.draw(st.integers(0, len(ways) - 1))]
        parts = list(zip(self.ways.split(one[0], sizes), sizes, strict=True))
        self.dims += parts
        self.product(*one, parts)

    def product(self, dim: Dim, size: int, parts: Sequence[tuple[Dim, int]]) -> None:
        def law(gone: Callable[[Dim, int], np.ndarray]) -> bool:
            first, second = (gone(*each) for each in parts)
            return np.array_equal(gone(dim, size), np.logical_or.outer(first, second).reshape(-1))

        self.laws.append(law)

    def equate(self) -> None:
        a = self.pick()
        assert a is not None
        b = self.pick(lambda size: size == a[1])
        assert b is not None
        found = self.ways.equate(a[0], b[0])
        self.laws.append(lambda gone: np.array_equal(gone(*a), gone(*b)))
        self.laws.append(lambda gone: np.array_equal(gone(*a), gone(found, a[1])))

    def halves(self) -> None:
        one = self.pick(lambda size: size % 2 == 0)
        if one is not None and one[0] is not None:
            half = one[1] // 2
            self.dims += [(one[0][half:], half), (one[0][:half], half)]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), steps=st.integers(2, 14))
def test_whatever_goes_every_equation_holds(data: st.DataObject, steps: int) -> None:
    """Splits that do not agree may fix too much; they never let go what an equation holds."""
    program = Program(data.draw)
    for _ in range(steps):
        program.step()
    ways = program.ways
    every = sorted(set().union(*(s for each in program.dims for s in leaves(ways, *each))))

    def found(removed: set[int], dim: Dim, size: int) -> np.ndarray:
        return np.array(going(ways, dim, size, removed))

    removals = [{one} for one in every]
    if every:
        removals.append(data.draw(st.sets(st.sampled_from(every))))
    for removed in removals:
        gone = partial(found, removed)
        assert all(law(gone) for law in program.laws)


@settings(max_examples=50, deadline=None)
@given(batches=st.lists(st.sets(st.integers(0, 300), max_size=40), max_size=12))
def test_numbers_as_a_dictionary_has_them(batches: list[set[int]]) -> None:
    table, known = Numbers(), {}
    asked = np.arange(-1, 302)
    for batch in batches:
        new = [key for key in batch if key not in known]
        numbers = list(range(len(known), len(known) + len(new)))
        table.add(np.array(new, np.int64), np.array(numbers, np.int64))
        known.update(zip(new, numbers, strict=True))
        assert table.get(asked).tolist() == [known.get(key, -1) for key in asked.tolist()]
    lengths = [len(keys) for keys, _ in table._parts]
    assert all(a >= 2 * b for a, b in itertools.pairwise(lengths))
