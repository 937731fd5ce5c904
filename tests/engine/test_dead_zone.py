"""The dead-zone quantiser against its definition, plain autograd and finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from dead_zone_example import straight_through
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.parts.reparam.dead_zone import DeadZone

numbers = st.floats(0.02, 4.0)


def weights(seed: int, count: int = 500) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def learned(width: float, bits: float | None = None) -> dict[str, Tensor]:
    found = {"width": torch.tensor(width, dtype=torch.double)}
    return found if bits is None else {**found, "bits": torch.tensor(bits, dtype=torch.double)}


def used(how: DeadZone, w: Tensor, given: dict[str, Tensor]) -> Tensor:
    return how.used(w, how.span(w), given)


@given(st.integers(0, 10**6), numbers, st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_zeros_levels_and_signs(seed: int, width: float, bits: int) -> None:
    w = weights(seed)
    w[:3] = torch.tensor([0.0, 1e-12, -1e-12])
    how = DeadZone(bits)
    a = how.span(w)
    assert float((w.abs() <= a).double().mean()) >= 0.99 > float((w.abs() < a).double().mean())
    q, half = used(how, w, learned(width)), float(a * (1 - math.tanh(width)))
    clear = (w.abs() - half).abs() > 1e-6 * float(a)
    assert torch.equal((q == 0)[clear], (w.abs() < half)[clear])  # whatever the bits are
    assert torch.equal(q.sign()[q != 0], w.sign()[q != 0])
    assert torch.equal(used(how, -w, learned(width)), -q)
    levels = q.unique()
    assert len(levels) <= 2 ** (bits - 1) * 2 - 1
    top = float(q.abs().max())
    assert top == pytest.approx(float(a), rel=1e-6)  # one in a hundred is clipped to it
    order = w.argsort()
    assert bool((q[order].diff() >= 0).all())


def test_without_a_shift_it_rounds_to_equal_steps() -> None:
    # h = 0 where d = s = a / Q, which a width of artanh(1 - 1 / 2 Q) gives.
    w, bits = weights(1), 4
    how, top = DeadZone(bits), 7
    a = how.span(w)
    found = used(how, w, learned(math.atanh(1 - 1 / (2 * top))))
    step = a / top
    assert torch.allclose(found, (w / step).round().clamp(-top, top) * step, atol=1e-6)


@pytest.mark.parametrize(("width", "about"), [(3, 0.01), (1, 0.46), (0.4, 0.89), (0.25, 0.95)])
def test_sparsity_of_normal_weights(width: float, about: float) -> None:
    """Of normal weights a = 2.576, and those below a (1 - tanh t) are zero."""
    q = used(DeadZone(4), weights(0, 200_000), learned(width))
    expected = math.erf(2.5758 * (1 - math.tanh(width)) / math.sqrt(2))
    assert float((q == 0).double().mean()) == pytest.approx(expected, abs=0.003)
    assert expected == pytest.approx(about, abs=0.006)


@given(st.integers(0, 10**6), st.floats(0.05, 3), st.floats(0.05, 3), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_gradients_are_those_of_autograd(seed: int, width: float, bits: float, most: int) -> None:
    for learn in (False, True):
        w, given = weights(seed).requires_grad_(), learned(width, bits if learn else None)
        leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
        grad = weights(seed + 1)
        expected = straight_through(w, leaves["width"], leaves.get("bits"), most)
        (expected * grad).sum().backward()
        how = DeadZone(most, learn)
        span = how.span(w.detach())
        assert torch.allclose(how.used(w.detach(), span, given), expected, rtol=0, atol=1e-12)
        assert isinstance(w.grad, Tensor)
        assert torch.allclose(w.grad, grad, rtol=0, atol=1e-9)  # it passes as it is
        found = how.gradients(w.detach(), span, given, grad)
        for name, leaf in leaves.items():
            assert isinstance(leaf.grad, Tensor)
            torch.testing.assert_close(found[name], leaf.grad, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10**6), st.floats(0.1, 2.5), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_gradients_are_differences_of_the_surrogate(seed: int, width: float, bits: int) -> None:
    """Where rounding, clipping and the maximum add what they add here, and nothing else moves."""
    w, grad = weights(seed), weights(seed + 1)
    how = DeadZone(bits)
    a, top = how.span(w), 2 ** (bits - 1) - 1

    def levels(t: float) -> tuple[Tensor, Tensor]:
        d = 2 * a * (1 - math.tanh(t))
        s = (a - d / 2) / (top - 0.5) + 1e-8
        return s, d / 2 - s / 2

    s, h = levels(width)
    missing = (w.abs() - h).clamp(min=0) - (w.abs() - h)
    x = w.sign() * (w.abs() - h + missing) / s
    z = x.round().clamp(-top, top)

    def loss(t: float) -> float:
        s, h = levels(t)
        near = w.sign() * (w.abs() - h + missing) / s + (z - x)
        return float(((s * near + h * z.sign()) * grad).sum())

    numeric = (loss(width + 1e-6) - loss(width - 1e-6)) / 2e-6
    found = how.gradients(w, a, learned(width), grad)["width"]
    assert float(found) == pytest.approx(numeric, rel=1e-5, abs=1e-5)


def test_bits_follow_their_number() -> None:
    how = DeadZone(8, learn_bits=True)
    assert how.told(learned(1.0, 3.0)) == {"bits": 8}
    assert how.told(learned(1.0, 0.0)) == {"bits": 2}
    assert how.told(learned(1.0, 0.5)) == {"bits": round(6 * math.tanh(0.5) + 2)}
    assert DeadZone(3).told(learned(1.0)) == {"bits": 3}
    assert [number.name for number in how.numbers] == ["width", "bits"]
    assert [number.decay for number in DeadZone(8, True, 2.0, 0.5).numbers] == [2.0, 0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits=1 is a whole number from 2 to 8"),
        ({"bits": 4.0}, "bits=4.0 is a whole number"),
        ({"bits": True}, "bits=True is a whole number"),
        ({"decay": -1.0}, "decay=-1.0 is a finite number"),
        ({"lr": math.nan}, "lr=nan is a finite number"),
        ({"bits_decay": 1.0}, "give learn_bits=True too"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        DeadZone(**options)
