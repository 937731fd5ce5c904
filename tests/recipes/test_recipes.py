"""Recipes: their stages against the papers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from regrow.core.budget import kept_count
from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.program import Program
from regrow.parts.criteria.lamp import Lamp
from regrow.parts.patterns.nm import NofM
from regrow.parts.patterns.unit import Unit
from regrow.parts.schedule.geometric import Geometric
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.patience import Patience
from regrow.parts.units.taylor import UnitTaylor
from regrow.recipes import (
    RECIPES,
    bidirectional,
    bidirectional_paper,
    cops,
    gradual,
    hybrid,
    iterative,
    manual,
    one_shot,
    woodfisher,
)

VGG16 = 14_715_584


def targets(program: Program) -> list[tuple[int, float]]:
    """(epoch, sparsity) of every event of a program of fixed lengths."""
    found, start = [], 0
    for stage in program.stages:
        assert stage.length is not None
        for epoch in range(stage.length.value):
            density = stage.plan.schedule.target(Step.epochs(epoch))  # type: ignore[union-attr]
            if density is not None:
                found.append((start + epoch, round(1 - density, 10)))
        start += stage.length.value
    return found


def test_the_published_form_cuts_deep_then_grows_back() -> None:
    program = bidirectional_paper(sparsity=0.97, overshoot=0.99, epochs=(40, 20))
    assert targets(program) == [(0, 0.99), (40, 0.97)]
    assert program.epochs == 60
    cut, back = (stage.plan for stage in program.stages)
    assert cut.regrowth is None
    assert cut.criterion == Lamp()
    assert back.regrowth is not None
    assert type(back.regrowth.rule).__name__ == "DenseSaliency"
    assert back.regrowth.value.values(None, None) is None  # type: ignore[arg-type]
    assert back.regrowth.ssim_below is None


def test_the_published_move_returns_two_percent_of_the_weights() -> None:
    """98.85 % -> 96.85 %: K = 0.02 N = 294,311 or 294,312 of VGG16's weights."""
    program = bidirectional_paper(sparsity=0.9685, overshoot=0.9885, epochs=(40, 40), cuts=20)
    (*_, (_, deep), (_, back)) = targets(program)
    k = kept_count(VGG16, 1 - back) - kept_count(VGG16, 1 - deep)
    assert abs(k - 0.02 * VGG16) <= 1


def test_twenty_cuts_of_a_fifth_reach_the_published_start() -> None:
    program = bidirectional_paper(sparsity=0.9685, overshoot=1 - 0.8**20, epochs=(40, 20), cuts=20)
    deep = targets(program)[:20]
    assert [epoch for epoch, _ in deep] == list(range(0, 40, 2))
    densities = [1.0, *(1 - s for _, s in deep)]
    shares = [1 - b / a for a, b in pairwise(densities)]
    assert shares == pytest.approx([0.2] * 20, abs=1e-6)
    assert deep[-1][1] == pytest.approx(0.9885, abs=5e-5)


def test_rounds_share_the_epochs_and_start_where_the_last_ended() -> None:
    program = bidirectional_paper(0.9, 0.95, (11, 10), rounds=3)
    assert targets(program) == [(0, 0.95), (3, 0.9), (6, 0.95), (9, 0.9), (12, 0.95), (17, 0.9)]
    assert program.epochs == 21
    program = bidirectional_paper(0.9, 0.95, (8, 8), rounds=2, cuts=2)
    second = program.stages[2].plan.schedule
    assert isinstance(second, Geometric)
    assert second.initial == 0.9
    assert [s for _, s in targets(program)][-2] == 0.95


def test_a_reference_is_trained_first_and_kept() -> None:
    program = bidirectional_paper(
        0.97, 0.99, (10, 10), reference=0.95, regrow="reference", value="reference"
    )
    assert targets(program) == [(0, 0.95), (10, 0.99), (20, 0.97)]
    assert [stage.keep_reference for stage in program.stages] == [True, False, False]
    cuts = bidirectional_paper(0.97, 0.99, (10, 10), reference=0.95, value="reference", cuts=5)
    assert cuts.stages[1].plan.schedule.initial == 0.95  # type: ignore[union-attr]


def test_one_shot_is_one_cut() -> None:
    assert targets(one_shot(0.9, 30)) == [(0, 0.9)]
    assert one_shot(0.9, 30).epochs == 30


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("constant", [0.32, 0.64, 0.96]),
        ("geometric", [1 - 0.04 ** (i / 3) for i in (1, 2, 3)]),
    ],
)
def test_iterative_gives_each_cut_an_equal_share(spacing: Any, expected: list[float]) -> None:
    found = targets(iterative(0.96, 32, 3, spacing=spacing))
    assert [epoch for epoch, _ in found] == [0, 10, 20]
    assert [s for _, s in found] == pytest.approx(expected)
    assert iterative(0.96, 32, 3).epochs == 32  # the last cut has the remainder


def test_hybrid_makes_all_its_cuts_and_meets_the_target() -> None:
    """The authors' code stops one step short: at .930 where .96 was asked for."""
    found = targets(hybrid(0.96, 60, 0.8, 5))
    assert [epoch for epoch, _ in found] == [0, 10, 20, 30, 40, 50]
    assert found[0][1] == 0.8
    assert found[-2][1] == pytest.approx(0.930, abs=5e-4)
    assert found[-1][1] == 0.96
    tail = [s for _, s in targets(hybrid(0.96, 60, 0.8, 5, tail="survivors"))]
    assert tail[1] - tail[0] == pytest.approx(0.055, abs=5e-4)


def test_gradual_ramps_within_its_window() -> None:
    found = targets(gradual(0.9, 40))
    assert [epoch for epoch, _ in found] == list(range(31))
    assert found[10][1] == pytest.approx(0.9 * (1 - (2 / 3) ** 3))
    assert found[-1] == (30, 0.9)
    fine = gradual(0.9, 40, end="700it", every="100it").stages[0].plan.schedule
    assert (fine.last, fine.start.value) == (Step.iterations(700), 0)
    found = targets(gradual(0.9, 40, start=5, end=25, every="10ep"))
    assert [epoch for epoch, _ in found] == [5, 15, 25]
    assert found[1][1] == pytest.approx(0.9 * (1 - 0.5**3))
    assert gradual(0.9, 40).epochs == 40
    assert targets(gradual(0.9, 2))[-1] == (1, 0.9)


def test_manual_goes_where_it_is_told_and_back() -> None:
    program = manual((0.8, 0.9, 0.85), (0, "5ep", 9), 12, regrow="random")
    assert targets(program) == [(0, 0.8), (5, 0.9), (9, 0.85)]
    assert program.stages[0].plan.regrowth is not None


@pytest.mark.parametrize(
    ("make", "sparsities"),
    [
        (lambda **o: one_shot(0.9, 60, **o), (0.9,)),
        (lambda **o: iterative(0.9, 60, 3, spacing="constant", **o), (0.3, 0.6, 0.9)),
        (lambda **o: hybrid(0.9, 60, 0.9, 2, **o), (0.9, 0.9, 0.9)),
    ],
)
def test_patience_shares_the_cap_of_the_program(
    make: Callable[..., Program], sparsities: tuple[float, ...]
) -> None:
    for given, waits in ((4, (4,)), ([4, 2], (4, 2))):
        (stage,) = make(patience=given).stages
        assert stage.length is None
        schedule = stage.plan.schedule
        assert isinstance(schedule, Patience)
        assert schedule.sparsities == pytest.approx(sparsities)
        assert schedule.patience == waits
        assert schedule.cap == 60 // len(sparsities)


OF_WEIGHTS = [row for row in RECIPES if row.name not in ("bidirectional_units", "codeq")]


@pytest.mark.parametrize(
    "row", [row for row in OF_WEIGHTS if row.name != "cops"], ids=lambda row: row.name
)
def test_shared_keywords_reach_every_stage(row: Any) -> None:
    program = row.make(
        criterion={"name": "magnitude"},
        allocation="erk",
        pattern={"name": "n_of_m", "n": 1, "m": 4},
        include=["conv*"],
        exclude=["conv9"],
        floor=3,
        seed=5,
    )
    assert program.seed == 5
    for stage in program.stages:
        plan = stage.plan
        if stage.length != Step(0):  # a sparse start is random
            assert type(plan.criterion).__name__ == "Magnitude"
        assert type(plan.allocation).__name__ == "ErdosRenyiKernel"
        assert plan.pattern == NofM(1, 4)
        assert (plan.include, plan.exclude, plan.floor) == (("conv*",), ("conv9",), 3)
    assert program.sparsity == 0.97
    with pytest.raises(RegrowError, match=r"'exlude'\. Did you mean 'exclude'"):
        row.make(exlude=("fc",))


ONE_WAY = [row for row in RECIPES if row.name in ("one_shot", "iterative", "hybrid", "gradual")]


@pytest.mark.parametrize("row", ONE_WAY, ids=lambda row: row.name)
def test_every_recipe_cuts_units_by_its_pattern(row: Any) -> None:
    options = {"first": 0.2} if row.name == "hybrid" else {}
    program = row.make(
        sparsity=0.6,
        criterion="taylor",
        pattern={"name": "unit", "of": "parameters", "round_to": 8},
        include=["conv*"],
        exclude=["conv9"],
        floor=3,
        **options,
    )
    assert program.structured
    assert program.sparsity == 0.6
    for stage in program.stages:
        plan = stage.plan
        assert plan.criterion == UnitTaylor()
        assert plan.pattern == Unit("parameters", round_to=8)
        assert (plan.include, plan.exclude, plan.floor) == (("conv*",), ("conv9",), 3)


@pytest.mark.parametrize("row", list(RECIPES), ids=lambda row: row.name)
def test_every_recipe_names_its_source(row: Any) -> None:
    assert "Source:" in (inspect.getdoc(row.make) or "")
    assert row.make().epochs == 60
    assert isinstance(row.make(), Program)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bidirectional_paper(0.99, 0.97), "overshoot=0.97 must be above sparsity=0.99"),
        (lambda: bidirectional_paper(0.97, 0.97), "must be above"),
        (lambda: bidirectional_paper(0.97, 99), "For 99 % write 0.99"),
        (lambda: bidirectional_paper(epochs=(30,)), "must be two numbers"),
        (lambda: bidirectional_paper(epochs=(30, 2), rounds=3), "the number of rounds, 3"),
        (lambda: bidirectional_paper(rounds=0), "the number of rounds, 0"),
        (lambda: bidirectional_paper(epochs=(5, 5), cuts=6), "6 cuts do not fit 5 epochs"),
        (lambda: bidirectional_paper(regrow="salience"), "Did you mean 'saliency'"),
        (lambda: bidirectional_paper(reference=0.9), "serve regrow or value 'reference'"),
        (
            lambda: bidirectional_paper(reference=0.98, value="reference"),
            "must be below sparsity=0.97",
        ),
        (lambda: bidirectional_paper(epochs=30), "epochs=30 must be two numbers"),  # type: ignore[arg-type]
        (lambda: bidirectional(0.97, overshoot=0.9), "overshoot=0.9 must not be below"),
        (lambda: bidirectional(0.97, overshoot=99), "For 99 % write 0.99"),
        (lambda: bidirectional(end=20), "got peak=30ep, end=20ep"),
        (lambda: bidirectional(peak=0), "needs 0 < peak < end"),
        (lambda: bidirectional(end=60), "lasts 60ep, but the last event"),
        (lambda: bidirectional(every="100it"), "of one unit"),
        (lambda: bidirectional(exchange=1.0), "exchange=1.0 is a fraction"),
        (lambda: bidirectional(regrow="newtn"), "Did you mean 'newton'"),
        (lambda: bidirectional(memory=2.0), "memory=2.0 is the speed"),
        (lambda: bidirectional(value="remembered"), "memory=0, which keeps them"),
        (lambda: bidirectional(layers={"name": "learned", "episodes": 3}), "learn its layer"),
        (lambda: bidirectional(cuts=2), "unknown keyword of a recipe: 'cuts'"),  # type: ignore[call-arg]
        (lambda: iterative(0.9, 3, 4), "4 cuts do not fit 3 epochs"),
        (lambda: iterative(0.9, 3, 0), "0 cuts do not fit"),
        (lambda: iterative(spacing="linear"), "got 'linear'"),  # type: ignore[arg-type]
        (lambda: hybrid(0.7, first=0.8), "beyond its target 0.7"),
        (lambda: hybrid(epochs=4, cuts=4), "5 cuts do not fit 4 epochs"),
        (lambda: gradual(0.9, 10, end=10), "lasts 10ep, but the last event"),
        (lambda: gradual(0.9, 10, every="100it"), "of one unit"),
        (lambda: bidirectional_paper(0.5, 0.8, cuts=0), "cuts=0 must be at least 1"),
        (lambda: woodfisher(0.5, 10, initial=2.0), "initial sparsity is the fraction removed"),
        (lambda: cops(0.5, 10, pattern="unit"), "Cops ranks weights, not channels and heads"),
        (
            lambda: woodfisher(0.5, 10, pattern="unit", update="none"),
            "WoodFisher ranks weights, not channels and heads",
        ),
        (lambda: manual((0.5,), (0, 3)), "1 sparsities and 2 steps"),
        (lambda: manual((0.5, 0.6), (0, 60), 60), "falls on 60ep"),
        (lambda: one_shot(patience=0), "at least one epoch"),
        (lambda: one_shot(criterion="lam"), "Did you mean 'lamp'"),
    ],
)
def test_what_no_recipe_can_mean_is_refused(make: Callable[[], Program], message: str) -> None:
    with pytest.raises(RegrowError, match=re.escape(message)):
        make()


def test_the_one_way_control_ends_at_the_same_place_with_the_same_budget() -> None:
    headline, control = bidirectional_paper(0.97, 0.99, (30, 30)), one_shot(0.97, 60)
    assert (headline.sparsity, headline.epochs) == (control.sparsity, control.epochs)
    assert control.stages[0].plan.schedule == OneShot(0.97)
