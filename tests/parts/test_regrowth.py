"""Regrowth rules and values."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.model.collect import gradients
from regrow.model.inventory import Entry
from regrow.parts.criteria import CRITERIA
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.regrowth.values import FromReference, Initialiser, NewtonStep, Saved, Zero

CONV, FC = Entry("conv.weight", (8, 4, 3, 3), "conv"), Entry("fc.weight", (40, 60), "linear")


def draw(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {e.name: torch.randn(e.shape, generator=generator) for e in (CONV, FC)}


CURRENT, DENSE, GRADIENT = draw(0), draw(1), draw(2)
SQUARE = {name: g.square() for name, g in draw(3).items()}
REMEMBERED = draw(6)
REFERENCE = {n: w * (g > 0) for (n, w), g in zip(draw(4).items(), draw(5).values(), strict=True)}


def evidence(*key: object) -> Evidence:
    return Evidence(
        {
            Need("weight"): CURRENT,
            Need("gradient"): GRADIENT,
            Need("gradient_square"): SQUARE,
            Need("weight", "remembered"): REMEMBERED,
            Need("weight", "dense"): DENSE,
            Need("gradient_square", "dense"): SQUARE,
            Need("weight", "reference"): REFERENCE,
        },
        key=key or (0, 0),
    )


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("saliency", lambda n: SQUARE[n] * DENSE[n] ** 2),
        ("magnitude", lambda n: DENSE[n].abs()),
        ("gradient", lambda n: GRADIENT[n].abs()),
        ("gain", lambda n: -GRADIENT[n] * REMEMBERED[n]),
        ("newton", lambda n: GRADIENT[n] ** 2 / SQUARE[n]),
    ],
)
def test_deterministic_rules_follow_their_formula(name: str, formula) -> None:  # type: ignore[no-untyped-def]
    scores = RULES.build(name).score(evidence())
    assert set(scores) == {CONV.name, FC.name}
    for weight, score in scores.items():
        torch.testing.assert_close(score, formula(weight))


def test_a_weight_without_any_gradient_gains_nothing() -> None:
    none = {FC.name: torch.zeros(FC.shape)}
    seen = Evidence({Need("gradient"): none, Need("gradient_square"): none})
    assert not RULES.build("newton").score(seen)[FC.name].any()


def test_newton_finds_the_inputs_that_lower_the_loss_most_at_their_best_weight() -> None:
    """Least squares on independent inputs of very different scales, against fitting each alone.

    With noise of variance s^2 the Fisher diagonal is s^2 E[x^2], the Hessian's E[x^2].
    """
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(-2, 2, 12)
    x = torch.randn(4000, 12, generator=generator) * scale
    effect = torch.linspace(0.02, 0.3, 12)[torch.randperm(12, generator=generator)]
    y = x @ (effect / scale) + torch.randn(4000, generator=generator)
    model = torch.nn.Linear(12, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    batches = [(x[i : i + 4], y[i : i + 4]) for i in range(0, 4000, 4)]

    def loss_fn(net: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (net(batch[0]).squeeze(1) - batch[1]).square().mean() / 2

    mean, square = gradients(model, {"weight": model.weight}, loss_fn, batches, square=True)
    seen = Evidence({Need("gradient"): mean, Need("gradient_square"): square})
    best = (x * y[:, None]).mean(0) / x.square().mean(0)
    falls = torch.stack(
        [(y.square() - (y - b * c).square()).mean() / 2 for b, c in zip(best, x.T, strict=True)]
    )
    expected = falls.argsort(descending=True)[:4].tolist()
    found = {
        name: RULES.build(name).score(seen)["weight"][0].argsort(descending=True)[:4].tolist()
        for name in ("newton", "gradient")
    }
    assert set(found["newton"]) == set(expected)
    assert min(found["gradient"]) > 6, "the steepest are merely the largest inputs"
    assert set(found["gradient"]) != set(expected)


def test_no_rule_but_the_gradients_and_random_reads_the_sparse_weights() -> None:
    """All removed entries are zero there, so that they would tie."""
    current = {row.name for row in RULES if Need("weight") in row.make().needs}
    assert current == {"random"}
    assert RULES.build("gradient").needs == {Need("gradient")}


def test_the_reference_rule_chooses_only_what_is_alive_there() -> None:
    scores = RULES.build("reference").score(evidence())
    for name, score in scores.items():
        alive = REFERENCE[name] != 0
        assert 0 < alive.sum() < alive.numel()
        assert torch.equal(score > -torch.inf, alive)
        assert score[alive].unique().numel() == int(alive.sum())  # a random order, no ties
        assert ((score[alive] >= 0) & (score[alive] < 1)).all()


@pytest.mark.parametrize("name", ["random", "reference"])
def test_random_rules_depend_on_the_key_alone(name: str) -> None:
    rule = RULES.build(name)
    first, again, later = (rule.score(evidence(*key)) for key in ((0, 0), (0, 0), (0, 1)))
    for weight in first:
        assert torch.equal(first[weight], again[weight])
        assert not torch.equal(first[weight], later[weight])


def test_a_random_rule_is_not_the_random_criterion_again() -> None:
    """Else the control would regrow just what a random cut removed last."""
    grown = RULES.build("random").score(evidence())[FC.name]
    cut = CRITERIA.build("random").score(evidence())[FC.name]
    assert abs(float(torch.corrcoef(torch.stack([grown.flatten(), cut.flatten()]))[0, 1])) < 0.1


def test_values_that_are_copied() -> None:
    assert Zero().values(FC, evidence()) is None
    assert Zero().needs == frozenset()
    for entry in (CONV, FC):
        saved, copied = Saved().values(entry, evidence()), FromReference().values(entry, evidence())
        assert saved is not None
        assert copied is not None
        assert torch.equal(saved, DENSE[entry.name])
        assert torch.equal(copied, REFERENCE[entry.name])


@pytest.mark.parametrize(
    ("scheme", "entry", "fans"),
    [
        ("kaiming", CONV, 36),
        ("kaiming", FC, 60),
        ("xavier", CONV, 36 + 72),
        ("xavier", FC, 60 + 40),
    ],
)
def test_fresh_values_have_the_initialisers_bounds_and_variance(
    scheme: str, entry: Entry, fans: int
) -> None:
    part = VALUES.build({"name": "init", "scheme": scheme})
    draws = [part.values(entry, evidence(0, event)) for event in range(40)]
    values = torch.stack([d for d in draws if d is not None])
    bound = sqrt(6 / fans)
    assert values.shape == (40, *entry.shape)
    assert 0.99 * bound < values.max() <= bound
    assert -bound <= values.min() < -0.99 * bound
    # A uniform distribution's variance is b^2 / 3 = 2 / fans; torch's own initialisers agree.
    assert float(values.var()) == pytest.approx(2 / fans, rel=0.05)
    assert abs(float(values.mean())) < 0.05 * bound
    like = torch.empty(entry.shape)
    if scheme == "kaiming":
        torch.nn.init.kaiming_uniform_(like, nonlinearity="relu")
    else:
        torch.nn.init.xavier_uniform_(like)
    assert float(like.abs().max()) == pytest.approx(bound, rel=0.02)


def test_fresh_values_are_drawn_anew_at_every_event_and_apart_from_the_rule() -> None:
    part = Initialiser()
    first, again, later = (part.values(FC, evidence(*k)) for k in ((0, 0), (0, 0), (0, 1)))
    assert first is not None
    assert again is not None
    assert later is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    # The regrown entries are the largest of the rule's draw: one stream for both would make
    # every fresh value positive.
    rank = RULES.build("random").score(evidence())[FC.name]
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), rank.flatten()]))[0, 1])) < 0.1


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(RegrowError, match="'kaiming' or 'xavier'; got 'lecun'"):
        VALUES.build({"name": "init", "scheme": "lecun"})


def test_the_newton_step_is_the_best_value_of_one_weight() -> None:
    """Against least squares on one input at a time, as in the test of the rule above."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(64_000, 3, generator=generator) * torch.tensor([0.5, 1.0, 2.0])
    y = x @ torch.tensor([0.4, -0.1, 0.05]) + torch.randn(64_000, generator=generator)
    model = torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 64_000, 16)]

    def loss_fn(net: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (net(batch[0]).squeeze(1) - batch[1]).square().mean() / 2

    mean, square = gradients(model, {"weight": model.weight}, loss_fn, batches, square=True)
    living = {"weight": torch.ones(1, 3)}
    seen = Evidence(
        {Need("gradient"): mean, Need("gradient_square"): square, Need("weight"): living}
    )
    alone = (x * y[:, None]).mean(0) / x.square().mean(0)
    entry = Entry("weight", (1, 3), "linear")
    for share in (0.5, 1.0):
        step = NewtonStep(batch=16, share=share).values(entry, seen)
        assert step is not None
        # The Fisher diagonal is the residual's variance (1.2) times the curvature, not quite one.
        torch.testing.assert_close(step[0] * y.square().mean() / share, alone, rtol=0.1, atol=0.01)


def test_no_newton_step_is_larger_than_what_lives() -> None:
    name, entry = "weight", Entry("weight", (1, 3), "linear")
    seen = Evidence(
        {
            Need("gradient"): {name: torch.tensor([[1.0, -1.0, 0.0]])},
            Need("gradient_square"): {name: torch.tensor([[1.0, 1.0, 0.0]])},
            Need("weight"): {name: torch.tensor([[0.0, -0.25, 0.125]])},
        }
    )
    step = NewtonStep().values(entry, seen)
    assert step is not None
    assert step.tolist() == [[-0.25, 0.25, 0.0]]


@pytest.mark.parametrize("options", [{"batch": 0}, {"share": 0.0}, {"share": 1.5}])
def test_the_newton_step_refuses(options) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RegrowError, match="batch="):
        NewtonStep(**options)
