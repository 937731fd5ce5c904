"""Criteria against their formulas, written out anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.neighbours import Neighbours, Place
from regrow.parts.criteria import CRITERIA
from regrow.parts.criteria.lamp import lamp
from regrow.parts.criteria.magnitude import Magnitude
from regrow.parts.criteria.shuffled import Shuffled
from regrow.parts.criteria.taylor import Taylor

WEIGHT, GRADIENT, SQUARE = Need("weight"), Need("gradient"), Need("gradient_square")


def evidence(key: tuple[object, ...] = (0, 0), **tensors: Tensor) -> Evidence:
    """One layer "w" with the given kinds of evidence."""
    return Evidence({Need(kind): {"w": t} for kind, t in tensors.items()}, key=key)  # type: ignore[arg-type]


def score(name: str, found: Evidence) -> Tensor:
    return CRITERIA.build(name).score(found)["w"]


def lamp_by_definition(weight: Tensor) -> list[float]:
    """w_u^2 over the sum of w_v^2 over all v that are larger, or equal and not later: O(n^2)."""
    flat = [float(x) for x in weight.reshape(-1).double()]
    scores = []
    for u, x in enumerate(flat):
        below = sum(
            y * y for v, y in enumerate(flat) if y * y > x * x or (y * y == x * x and v <= u)
        )
        scores.append(x * x / below if below else 0.0)
    return scores


def test_lamp_by_hand() -> None:
    weight = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    torch.testing.assert_close(
        lamp(weight), torch.tensor([[1 / 14, 4 / 13], [1.0, 0.0]], dtype=torch.float64)
    )


def test_lamp_breaks_ties_towards_the_lower_index() -> None:
    torch.testing.assert_close(
        lamp(torch.tensor([2.0, -2.0, 2.0])), torch.tensor([1.0, 1 / 2, 1 / 3]).double()
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.5, -0.5, 1.0, -1.0, 1e-3, 7.25]), min_size=1, max_size=24)
)
def test_lamp_equals_its_definition(values: list[float]) -> None:
    weight = torch.tensor(values)
    scores = lamp(weight)
    torch.testing.assert_close(scores, torch.tensor(lamp_by_definition(weight)).double())
    # Inside a layer the order is that of |w|.
    order = scores.argsort(descending=True, stable=True)
    assert (weight.abs()[order].diff() <= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.125, 8, width=16), min_size=1, max_size=30, unique=True))
def test_lamp_scores_rebuild_the_weights(values: list[float]) -> None:
    """The sum rule: with S the sum of the squares at least as large, S_k = S_(k-1) / (1 - s_k)."""
    scores = sorted(lamp(torch.tensor(values)).tolist(), reverse=True)
    assert scores[0] == 1.0
    total = max(values) ** 2
    for s in scores[1:]:
        total /= 1 - s
    assert total == pytest.approx(sum(v * v for v in values), rel=1e-9)


def test_lamp_of_zeros_and_of_small_weights_is_finite() -> None:
    assert lamp(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    tiny = lamp(torch.full((4,), 1e-30))
    torch.testing.assert_close(tiny, torch.tensor([1, 1 / 2, 1 / 3, 1 / 4]).double())


def test_lamp_keeps_shape_and_half_precision_weights() -> None:
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    scores = lamp(weight)
    assert scores.shape == weight.shape
    torch.testing.assert_close(
        scores.reshape(-1), torch.tensor(lamp_by_definition(weight), dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", [[1.0, 2.0], [0.5, 0.0]]),
        ("taylor", [[3.0, 0.5], [2.0, 0.0]]),
        ("saliency", [[9.0, 4.0], [4.0, 0.0]]),
        ("fisher", [[9.0, 1.0], [16.0, 25.0]]),
    ],
)
def test_scores_by_hand(name: str, expected: list[list[float]]) -> None:
    """Batch gradients are not constant here, so E[g^2] is not E[g]^2."""
    found = evidence(
        weight=torch.tensor([[1.0, -2.0], [0.5, 0.0]]),
        gradient=torch.tensor([[-3.0, 0.25], [4.0, 5.0]]),
        gradient_square=torch.tensor([[9.0, 1.0], [16.0, 25.0]]),
    )
    assert score(name, found).tolist() == expected


@pytest.mark.parametrize("name", ["taylor", "saliency"])
def test_products_of_half_precision_weights_are_not_rounded_to_half(name: str) -> None:
    weight = torch.tensor([3e-4, 300.0]).half()
    found = evidence(weight=weight, gradient=torch.ones(2), gradient_square=torch.ones(2))
    power = 1 if name == "taylor" else 2
    assert score(name, found).dtype == torch.float32
    torch.testing.assert_close(score(name, found), weight.float() ** power)


def test_random_depends_on_the_key_and_on_nothing_else() -> None:
    weight, other = torch.zeros(50, 40), torch.ones(50, 40)
    first = score("random", evidence(weight=weight))
    assert torch.equal(first, score("random", evidence(weight=other)))
    assert not torch.equal(first, score("random", evidence((0, 1), weight=weight)))
    assert not torch.equal(first, score("random", evidence((1, 0), weight=weight)))
    both = Evidence({WEIGHT: {"w": weight, "v": weight}}, key=(0, 0))
    scores = CRITERIA.build("random").score(both)
    assert torch.equal(scores["w"], first)
    assert not torch.equal(scores["w"], scores["v"])
    assert 0 <= first.min() < 0.01 < 0.99 < first.max() < 1
    assert abs(float(first.mean()) - 0.5) < 0.03


@pytest.mark.parametrize("row", list(CRITERIA), ids=lambda row: row.name)
def test_every_criterion_declares_what_it_reads(row: Any) -> None:
    part = row.make()
    of_tensors = {need for need in part.needs if need.kind != "neighbours"}
    alone = Neighbours((Place("w"),), (), (), {"w": torch.rand(3, 4)})
    around = alone if of_tensors < part.needs else None
    tensors = {n: {"w": torch.rand((3, 4, 4) if n.how else (3, 4))} for n in of_tensors}
    cut: dict[str, Any] = {"keep": 5, "alive": {"w": torch.ones(3, 4, dtype=torch.bool)}}
    scores = part.score(Evidence(tensors, key=(0,), neighbours=around, **cut))
    assert scores["w"].shape == (3, 4)
    for need in part.needs:
        less = {other: t for other, t in tensors.items() if other != need}
        found = Evidence(less, key=(0,), neighbours=around if need in of_tensors else None)
        with pytest.raises(RegrowError, match=need.kind):
            part.score(replace(found, **cut))


def test_shuffled_are_the_same_scores_in_other_places_of_the_same_weight() -> None:
    weights = {"a": torch.randn(40, 30), "b": torch.randn(7)}
    found = Evidence({Need("weight"): weights}, key=(0, 1))
    usual, wrong = Magnitude().score(found), Shuffled("magnitude").score(found)
    for name, scores in usual.items():
        assert torch.equal(scores.flatten().sort().values, wrong[name].flatten().sort().values)
    assert int((usual["a"] == wrong["a"]).sum()) < 10
    assert torch.equal(wrong["a"], Shuffled("magnitude").score(found)["a"])
    later = Evidence({Need("weight"): weights}, key=(0, 2))
    assert not torch.equal(wrong["a"], Shuffled("magnitude").score(later)["a"])
    assert Shuffled("taylor").needs == Taylor().needs
    with pytest.raises(RegrowError, match="shuffle twice"):
        Shuffled("shuffled")
    with pytest.raises(RegrowError, match="Did you mean 'taylor'"):
        Shuffled("tailor")
