"""Controlled pruning against a general solver of linear programmes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.topk import largest
from regrow.parts.criteria import CRITERIA
from regrow.parts.criteria.cops import Cops, Solution

SHAPES = {"a": (20, 10), "b": (100,), "c": (10, 5, 2)}


def drawn(seed: int, power: int = 3, signed: bool = False, size: int = 400) -> Evidence:
    """Evidence by which "magnitude", "fisher", "synflow" and "grasp" are independent scores.

    All heavy-tailed; "grasp" signed if asked for. Some weights have been removed before.
    """
    source = torch.Generator().manual_seed(seed)
    shapes = SHAPES if size == 400 else {"a": (size,)}
    tensors: dict[Need, dict[str, Tensor]] = {}

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    weight = {n: draw(s) ** power for n, s in shapes.items()}
    tensors[Need("weight")] = weight
    for kind in ("gradient_square", "flow", "hessian_gradient"):
        wanted = {n: draw(s) ** power for n, s in shapes.items()}
        if kind == "gradient_square":
            tensors[Need(kind)] = {n: w.abs() for n, w in wanted.items()}
        elif kind == "flow" or signed:
            tensors[Need(kind)] = {n: w / weight[n] for n, w in wanted.items()}  # type: ignore[index]
        else:
            tensors[Need(kind)] = {n: w.abs() / weight[n] for n, w in wanted.items()}  # type: ignore[index]
    alive = {n: torch.rand(s, generator=source) < 0.9 for n, s in shapes.items()}
    return Evidence(tensors, keep=40 * size // 400, alive=alive)


def joined(name: str, evidence: Evidence) -> Tensor:
    """A score of all weights that compete."""
    found = CRITERIA.build(name).score(evidence)
    assert evidence.alive is not None
    return torch.cat([found[n][m] for n, m in evidence.alive.items()]).double()


def mask_of(solution: Solution, evidence: Evidence) -> Tensor:
    """What the event keeps by the combined scores: the k largest, ties to the earlier."""
    assert evidence.alive is not None
    assert evidence.keep is not None
    scores = torch.cat([solution.scores[n][m] for n, m in evidence.alive.items()])
    return largest(scores, evidence.keep)


def share(name: str, evidence: Evidence, mask: Tensor) -> float:
    """By the definition: the sum over the mask, of the sum of the k largest."""
    scores = joined(name, evidence)
    return float(scores[mask].sum() / scores.sort(descending=True).values[: evidence.keep].sum())


def relaxed(cops: Cops, evidence: Evidence) -> float:
    """The optimum over fractional masks, by HiGHS."""
    rows = []
    for name in (cops.main, *cops.controls):
        scores = joined(name, evidence)
        rows.append((scores / scores.sort(descending=True).values[: evidence.keep].sum()).numpy())
    found = linprog(
        -rows[0],
        A_ub=-np.stack(rows[1:]),
        b_ub=-np.array(cops.least),
        A_eq=np.ones((1, len(rows[0]))),
        b_eq=[evidence.keep],
        bounds=(0, 1),
        method="highs",
    )
    assert found.status == 0
    return -float(found.fun)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.booleans())
def test_feasible_and_nearly_as_good_as_the_relaxed_optimum(
    seed: int, least: float, signed: bool
) -> None:
    evidence = drawn(seed, signed=signed)
    cops = Cops("magnitude", ("grasp",), (least,))
    solution = cops.solve(evidence)
    mask = mask_of(solution, evidence)
    assert int(mask.sum()) == evidence.keep
    shares = {name: share(name, evidence, mask) for name in ("magnitude", "grasp")}
    assert shares["grasp"] >= least - 1e-9
    assert solution.shares == pytest.approx(shares, abs=1e-9)
    best = relaxed(cops, evidence)
    # Two weights of forty may be fractional in the relaxed optimum.
    assert best - 0.15 <= shares["magnitude"] <= best + 1e-9
    assert (solution.multipliers["grasp"] > 0) == (
        share("grasp", evidence, largest(joined("magnitude", evidence), 40)) < least - 1e-12
    )


def test_the_gap_shrinks_with_size() -> None:
    gaps = []
    for seed in range(6):
        evidence = drawn(seed, size=4000)
        cops = Cops("magnitude", ("grasp",), (0.8,))
        gaps.append(relaxed(cops, evidence) - cops.solve(evidence).shares["magnitude"])
    assert max(gaps) < 0.005


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_at_zero_it_is_the_main_mask_and_at_one_the_controls(seed: int) -> None:
    evidence = drawn(seed)
    for least, name in ((0.0, "magnitude"), (1.0, "synflow")):
        found = mask_of(Cops("magnitude", ("synflow",), (least,)).solve(evidence), evidence)
        assert torch.equal(found, largest(joined(name, evidence), 40))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_kept_of_the_main_score_falls_with_the_share_asked_for(seed: int) -> None:
    evidence = drawn(seed)
    kept = [
        Cops("magnitude", ("synflow",), (least,)).solve(evidence).shares["magnitude"]
        for least in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(8))
def test_several_controls_hold_together(seed: int) -> None:
    evidence = drawn(seed, size=4000, signed=seed % 2 == 1)
    for controls, least in (
        (("synflow", "grasp"), (0.3, 0.3)),
        (("synflow", "grasp"), (0.6, 0.2)),
        (("synflow", "grasp", "fisher"), (0.3, 0.3, 0.2)),
    ):
        cops = Cops("magnitude", controls, least)
        solution = cops.solve(evidence)
        mask = mask_of(solution, evidence)
        for name, wanted in zip(controls, least, strict=True):
            assert share(name, evidence, mask) >= wanted - 1e-9
            assert solution.shares[name] == pytest.approx(share(name, evidence, mask), abs=1e-9)
        assert 0 <= relaxed(cops, evidence) - solution.shares["magnitude"] < 0.03


def balanced(names: tuple[str, str], evidence: Evidence) -> float:
    """max t over fractional masks and t, where both shares are at least t; by HiGHS."""
    rows = []
    for name in names:
        scores = joined(name, evidence)
        best = scores.sort(descending=True).values[: evidence.keep].sum()
        rows.append(np.append(-(scores / best).numpy(), 1.0))
    count = len(rows[0]) - 1
    found = linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.stack(rows),
        b_ub=np.zeros(2),
        A_eq=np.append(np.ones(count), 0.0)[None],
        b_eq=[evidence.keep],
        bounds=[(0, 1)] * count + [(None, None)],
        method="highs",
    )
    assert found.status == 0
    return -float(found.fun)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_max_min_is_nearly_as_good_as_the_relaxed_optimum(seed: int, signed: bool) -> None:
    evidence = drawn(seed, signed=signed)
    solution = Cops("magnitude", ("grasp",), ()).solve(evidence)
    mask = mask_of(solution, evidence)
    assert int(mask.sum()) == evidence.keep
    shares = {name: share(name, evidence, mask) for name in ("magnitude", "grasp")}
    assert solution.shares == pytest.approx(shares, abs=1e-9)
    best = balanced(("magnitude", "grasp"), evidence)
    # Two weights of forty may be fractional in the relaxed optimum.
    assert best - 0.15 <= min(shares.values()) <= best + 1e-9
    # No mask of another multiplier does better.
    for least in (0.5, 0.9):
        other = Cops("magnitude", ("grasp",), (least,)).solve(evidence).shares
        assert min(other.values()) <= min(shares.values()) + 1e-9


def test_the_gap_of_max_min_shrinks_with_size() -> None:
    for seed in range(6):
        evidence = drawn(seed, size=4000, signed=seed % 2 == 1)
        kept = Cops("magnitude", ("grasp",), ()).solve(evidence).shares
        assert balanced(("magnitude", "grasp"), evidence) - min(kept.values()) < 0.005
        assert kept["magnitude"] == pytest.approx(kept["grasp"], abs=0.01)


def test_max_min_of_like_scores_is_the_best_mask_of_both() -> None:
    evidence = drawn(0)
    weight = evidence[Need("weight")]
    twice = {n: 2 * w.abs() for n, w in weight.items()}
    evidence = Evidence(
        {**evidence.tensors, Need("gradient_square"): twice},
        keep=evidence.keep,
        alive=evidence.alive,
    )
    solution = Cops("magnitude", ("fisher",), ()).solve(evidence)
    assert torch.equal(mask_of(solution, evidence), largest(joined("magnitude", evidence), 40))
    assert solution.shares == {"magnitude": pytest.approx(1), "fisher": pytest.approx(1)}


def test_several_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(RegrowError, match=r"no mask of 40 weights.*Lower the shares"):
        Cops("magnitude", ("synflow", "grasp"), (0.95, 0.95)).solve(drawn(0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_with_ties_everywhere_exactly_as_many_are_kept_and_the_share_holds(
    seed: int, least: float
) -> None:
    source = torch.Generator().manual_seed(seed)

    def few(kind: str) -> dict[str, Tensor]:
        return {"a": torch.randint(0, 3, (15, 20), generator=source).float()}

    evidence = Evidence(
        {Need("weight"): few("w"), Need("gradient_square"): few("f")},
        keep=37,
        alive={"a": torch.ones(15, 20, dtype=torch.bool)},
    )
    solution = Cops("magnitude", ("fisher",), (least,)).solve(evidence)
    mask = mask_of(solution, evidence)
    assert int(mask.sum()) == 37
    assert share("fisher", evidence, mask) >= least - 1e-9


def test_what_it_tells_is_of_the_mask_that_was_made() -> None:
    evidence = drawn(3)
    assert evidence.alive is not None
    cops = Cops("magnitude", ("synflow",), (0.8,))
    solution = cops.solve(evidence)
    wanted = mask_of(solution, evidence)
    keep, at = {}, 0
    for name, mask in evidence.alive.items():
        keep[name] = torch.zeros_like(mask)
        size = int(mask.sum())
        keep[name][mask] = wanted[at : at + size]
        at += size
    told = cops.told(evidence, keep)
    assert told == {"shares": pytest.approx(solution.shares)}
    keep["a"] = torch.zeros_like(keep["a"])  # as a floor of other layers might do
    assert cops.told(evidence, keep)["shares"]["synflow"] < solution.shares["synflow"]


def test_a_score_without_a_positive_best_sum_is_refused() -> None:
    evidence = drawn(0)
    weight = evidence[Need("weight")]
    against = {n: -w.sign() for n, w in weight.items()}
    evidence = Evidence(
        {**evidence.tensors, Need("hessian_gradient"): against},
        keep=evidence.keep,
        alive=evidence.alive,
    )
    with pytest.raises(RegrowError, match=r"40 largest scores of 'grasp' sum to -.*keep fewer"):
        Cops("magnitude", ("grasp",), (0.5,)).solve(evidence)
    bad = {n: torch.full_like(w, torch.nan) for n, w in weight.items()}
    evidence = Evidence(
        {**evidence.tensors, Need("flow"): bad}, keep=evidence.keep, alive=evidence.alive
    )
    with pytest.raises(RegrowError, match="'synflow' is not finite"):
        Cops("magnitude", ("synflow",), (0.5,)).solve(evidence)


def test_only_a_cut_has_a_number_to_keep() -> None:
    evidence = drawn(0)
    with pytest.raises(RegrowError, match="which only a cut has"):
        Cops("magnitude").score(Evidence(evidence.tensors))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"main": "magnitud"}, "Did you mean 'magnitude'"),
        ({"controls": ("cops",)}, "different scores, each once; got taylor, cops"),
        ({"controls": ("taylor",)}, "each once"),
        ({"controls": ()}, "0 controls and 1 shares"),
        ({"least": (0.5, 0.6)}, "1 controls and 2 shares"),
        ({"controls": ("synflow", "grasp"), "least": ()}, "2 controls and 0 shares.*one control"),
        ({"least": (1.5,)}, r"shares in \[0, 1\]"),
        ({"controls": "synflow"}, "are lists"),
        ({"least": 0.9}, "are lists"),
        ({"main": {"name": "lamp"}}, "names alone"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        Cops(**options)


def test_it_needs_what_its_scores_need() -> None:
    needs = {Need("weight"), Need("gradient"), Need("hessian_gradient")}
    assert Cops("taylor", ("grasp",)).needs == needs
