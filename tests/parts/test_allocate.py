"""Allocations: exact sums between bounds, and their rules against independent computations."""

from __future__ import annotations

import re
from math import ceil, prod

import pytest
import torch
from allocation_example import dense_budget, entries_of, problems, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.budget import Budget, kept_count
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence
from regrow.core.protocols import Allocation
from regrow.model.inventory import Entry
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.allocate.explicit import Explicit
from regrow.parts.allocate.global_ import Global
from regrow.parts.allocate.ssim import SsimFill, SsimProportional
from regrow.parts.allocate.uniform_plus import UniformPlus

NONE = Evidence({})


def build(name: str) -> Allocation:
    options = {"sparsities": {"*": 0.4}} if name == "explicit" else {}
    return ALLOCATIONS.build({"name": name, **options})


def spares(entries: tuple[Entry, ...], budget: Budget) -> bool:
    """Whether uniform_plus can spare the first convolution and a fifth of the last linear layer."""
    least = dict(budget.lower)
    convolutions = [e for e in entries if e.kind == "conv"]
    for linear in [e for e in entries if e.kind == "linear"][-1:]:
        fifth = min(-(-linear.numel // 5), budget.upper[linear.name])
        least[linear.name] = max(least[linear.name], fifth)
    for first in convolutions[:1]:
        least[first.name] = budget.upper[first.name]
    return sum(least.values()) <= budget.total


def implied(entries: tuple[Entry, ...]) -> int:
    """Weights that the explicit sparsities keep in all."""
    explicit = build("explicit")
    assert isinstance(explicit, Explicit)
    return sum(explicit.kept(entries).values())


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_allocation_sums_exactly_and_stays_in_bounds(problem) -> None:  # type: ignore[no-untyped-def]
    entries, budget, scores, evidence = problem
    for row in ALLOCATIONS:
        if row.name == "uniform_plus" and not spares(entries, budget):
            with pytest.raises(RegrowError, match="uniform_plus"):
                build(row.name).counts(entries, budget, scores, evidence)
            continue
        if row.name == "explicit" and budget.total < implied(entries) - len(entries):
            with pytest.raises(RegrowError, match="make the two agree"):
                build(row.name).counts(entries, budget, scores, evidence)
            continue
        counts = build(row.name).counts(entries, budget, scores, evidence)
        assert set(counts) == {e.name for e in entries}, row.name
        assert sum(counts.values()) == budget.total, row.name
        assert all(isinstance(c, int) for c in counts.values()), row.name
        for name, count in counts.items():
            assert budget.lower[name] <= count <= budget.upper[name], row.name


@settings(max_examples=80, deadline=None)
@given(problems())
def test_global_is_a_greedy_choice(problem) -> None:  # type: ignore[no-untyped-def]
    """First each layer's floor, then the best of what is left wherever there is room."""
    entries, budget, scores, _ = problem
    won = dict(budget.lower)
    rest = []
    for position, entry in enumerate(entries):
        ranked = sorted(enumerate(scores[entry.name].tolist()), key=lambda item: -item[1])
        rest += [
            (-value, position, index, entry.name)
            for index, value in ranked[budget.lower[entry.name] :]
        ]
    left = budget.total - sum(won.values())
    for _, _, _, name in sorted(rest):
        if left and won[name] < budget.upper[name]:
            won[name] += 1
            left -= 1
    assert Global().counts(entries, budget, scores, NONE) == won


def test_global_of_unlike_layers_by_hand() -> None:
    entries = entries_of((1, 4), (1, 4), (1, 4))
    scores = {
        "l0.weight": torch.tensor([9.0, 8.0, 7.0, 6.0]),
        "l1.weight": torch.tensor([5.0, 4.0, 0.3, 0.2]),
        "l2.weight": torch.tensor([0.1, 0.0, 0.0, 0.0]),
    }
    names = [e.name for e in entries]

    def counts(total: int, lower: int, upper: int) -> list[int]:
        bounds = Budget(total, dict.fromkeys(names, lower), dict.fromkeys(names, upper))
        return list(Global().counts(entries, bounds, scores, NONE).values())

    assert counts(5, 0, 4) == [4, 1, 0]
    assert counts(5, 1, 4) == [3, 1, 1]  # The floor of l2 costs l0's least, not l1's best.
    assert counts(5, 0, 2) == [2, 2, 1]
    assert counts(5, 1, 2) == [2, 2, 1]


def test_minus_infinity_is_never_counted() -> None:
    entries = entries_of((1, 4), (1, 4))
    scores = {"l0.weight": torch.full((4,), -torch.inf), "l1.weight": torch.zeros(4)}
    budget = Budget(3, {"l0.weight": 0, "l1.weight": 0}, {"l0.weight": 0, "l1.weight": 4})
    assert Global().counts(entries, budget, scores, NONE) == {"l0.weight": 0, "l1.weight": 3}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([(3, 2, 3, 3), (8, 5), (2, 9), (6, 6)]), min_size=1, max_size=5),
    st.floats(0, 0.99),
)
def test_uniform_is_within_one_unit_of_the_density(
    shapes: list[tuple[int, ...]], sparsity: float
) -> None:
    entries = entries_of(*shapes)
    total = kept_count(sum(e.numel for e in entries), 1 - sparsity)
    scores = scores_of(entries, 0)
    counts = ALLOCATIONS.build("uniform").counts(
        entries, dense_budget(entries, total), scores, NONE
    )
    density = total / sum(e.numel for e in entries)
    for entry in entries:
        assert abs(counts[entry.name] - density * entry.numel) < 1


def erk_by_solving_again(shapes: list[tuple[int, ...]], total: int) -> list[float]:
    """Densities: while the densest layer would exceed 1, set it dense and solve again."""
    raw = [sum(s) / prod(s) for s in shapes]
    dense: set[int] = set()
    while True:
        free = [i for i in range(len(shapes)) if i not in dense]
        left = total - sum(prod(shapes[i]) for i in dense)
        if not free:
            return [1.0] * len(shapes)
        scale = left / sum(raw[i] * prod(shapes[i]) for i in free)
        densest = max(free, key=lambda i: raw[i])
        if scale * raw[densest] <= 1:
            return [1.0 if i in dense else scale * raw[i] for i in range(len(shapes))]
        dense.add(densest)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 1, 1), (10, 128), (4, 4), (1, 7)]
        ),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 0.995),
)
def test_erk_equals_setting_dense_and_solving_again(
    shapes: list[tuple[int, ...]], sparsity: float
) -> None:
    entries = entries_of(*shapes)
    total = kept_count(sum(e.numel for e in entries), 1 - sparsity)
    scores = {e.name: torch.zeros(1).expand(e.numel) for e in entries}
    counts = ALLOCATIONS.build("erk").counts(entries, dense_budget(entries, total), scores, NONE)
    for entry, density in zip(entries, erk_by_solving_again(shapes, total), strict=True):
        assert abs(counts[entry.name] - density * entry.numel) < 1 + 1e-6


def test_erk_makes_small_layers_denser() -> None:
    entries = entries_of((64, 3, 3, 3), (64, 64, 3, 3), (10, 64))
    scores = scores_of(entries, 0)
    total = sum(e.numel for e in entries) // 20
    counts = ALLOCATIONS.build("erk").counts(entries, dense_budget(entries, total), scores, NONE)
    first, middle, last = (counts[e.name] / e.numel for e in entries)
    assert last == pytest.approx(first * (74 / 640) / (73 / 1728), rel=0.01)
    assert middle < 0.05 < first < last


def test_uniform_plus_spares_the_first_convolution_and_a_fifth_of_the_last_layer() -> None:
    entries = entries_of((4, 3, 3, 3), (8, 4, 3, 3), (8, 8, 3, 3), (20, 8), (11, 21))
    scores = scores_of(entries, 0)
    total = 300
    counts = list(
        UniformPlus().counts(entries, dense_budget(entries, total, 1), scores, NONE).values()
    )
    assert counts[0] == 108
    assert counts[4] == ceil(0.2 * 231) == 47
    share = (total - 108 - 47) / (288 + 576 + 160)
    for count, entry in zip(counts[1:4], entries[1:4], strict=True):
        assert abs(count - share * entry.numel) < 1
    # At a low sparsity the last layer is pruned like the others.
    counts = list(UniformPlus().counts(entries, dense_budget(entries, 1200), scores, NONE).values())
    share = (1200 - 108) / (288 + 576 + 160 + 231)
    assert abs(counts[4] - share * 231) < 1
    with pytest.raises(
        RegrowError, match=r"uniform_plus spares l0\.weight and a fifth of l4\.weight"
    ):
        UniformPlus().counts(entries, dense_budget(entries, 150), scores, NONE)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 0.95), min_size=3, max_size=3))
def test_explicit_is_exact_to_the_unit(sparsities: list[float]) -> None:
    entries = entries_of((3, 2, 3, 3), (8, 5), (11, 21))
    globs = [f"l{i}" if i % 2 else f"l{i}.weight" for i in range(3)]
    part = Explicit(tuple(zip(globs, sparsities, strict=True)))
    wanted = {e.name: round(e.numel * (1 - s)) for e, s in zip(entries, sparsities, strict=True)}
    assert part.kept(entries) == wanted
    budget = dense_budget(entries, sum(wanted.values()), 1)
    assert part.counts(entries, budget, scores_of(entries, 0), NONE) == wanted


def test_explicit_scales_all_densities_alike_on_the_way() -> None:
    entries = entries_of((10, 10), (10, 20))
    part = Explicit((("l0", 0.9), ("*", 0.8)))
    scores = scores_of(entries, 0)
    assert part.counts(entries, dense_budget(entries, 100), scores, NONE) == {
        "l0.weight": 20,
        "l1.weight": 80,
    }


def test_the_first_matching_glob_counts() -> None:
    entries = entries_of((10, 10), (10, 10), (10, 10))
    part = Explicit((("l1", 0.5), ("l[01]", 0.2), ("*", 0.9)))
    assert list(part.kept(entries).values()) == [80, 50, 10]
    assert Explicit({"l1": 0.5, "*": 0.9}) == Explicit((("l1", 0.5), ("*", 0.9)))  # type: ignore[arg-type]


def test_tied_weights_go_by_each_of_their_names() -> None:
    tied = Entry("embed.weight", (10, 10), "linear", aliases=("head.weight",))
    for name in ("embed", "head", "head.weight"):
        assert Explicit(((name, 0.9),)).kept((tied,)) == {"embed.weight": 10}
    with pytest.raises(RegrowError, match="'head' is never used, since 'embed'"):
        Explicit((("embed", 0.5), ("head", 0.9))).kept((tied,))


@pytest.mark.parametrize(
    ("sparsities", "message"),
    [
        ((("l0", 0.5),), "no sparsity is given for layer 'l1'; add it, or '*'"),
        ((("l9", 0.5), ("*", 0.5)), "unknown layer 'l9'. Did you mean"),
        ((("l0", 0.999), ("*", 0.5)), "would empty layer 'l0' of 100 weights"),
        ((("l*", 0.5), ("l1", 0.9)), "'l1' is never used, since 'l*' before it matches the same"),
    ],
)
def test_explicit_names_what_is_wrong(
    sparsities: tuple[tuple[str, float], ...], message: str
) -> None:
    with pytest.raises(RegrowError, match=re.escape(message)):
        Explicit(sparsities).kept(entries_of((10, 10), (10, 20)))


def test_explicit_refuses_a_percentage() -> None:
    with pytest.raises(RegrowError, match=r"sparsity of 'l0'.*For 90 % write 0\.9"):
        Explicit((("l0", 90.0),))


def test_fill_serves_the_most_damaged_layer_first() -> None:
    entries = entries_of((1, 10), (1, 10), (1, 10))
    names = [e.name for e in entries]
    evidence = Evidence({}, damage=dict(zip(names, [0.5, -0.1, 0.2], strict=True)))
    lower, upper = (
        dict(zip(names, [1, 2, 3], strict=True)),
        dict(zip(names, [10, 6, 8], strict=True)),
    )
    served = [
        list(SsimFill().counts(entries, Budget(total, lower, upper), {}, evidence).values())
        for total in (6, 8, 11, 15, 20, 24)
    ]
    assert served == [[1, 2, 3], [1, 4, 3], [1, 6, 4], [1, 6, 8], [6, 6, 8], [10, 6, 8]]


def test_proportional_shares_by_damage_and_not_by_size() -> None:
    entries = entries_of((1, 100), (10, 100), (1, 100))
    names = [e.name for e in entries]
    evidence = Evidence({}, damage=dict(zip(names, [0.4, 0.8, 0.9], strict=True)))
    lower = dict.fromkeys(names, 5)
    free = Budget(15 + 9, lower, {e.name: e.numel for e in entries})
    grown = SsimProportional().counts(entries, free, {}, evidence)
    assert [grown[n] - 5 for n in names] == [6, 2, 1]
    # What a full layer cannot take goes to the others in the same proportion.
    tight = Budget(15 + 9, lower, {**free.upper, names[0]: 8})
    grown = SsimProportional().counts(entries, tight, {}, evidence)
    assert [grown[n] - 5 for n in names] == [3, 4, 2]
