"""The controls of a fair comparison."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regrow.bench.arms import CONTROLS
from regrow.bench.config import configure
from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.plan import Plan
from regrow.engine.program import Program
from regrow.parts.criteria.lamp import Lamp
from regrow.parts.criteria.magnitude import Magnitude
from regrow.parts.criteria.saliency import Saliency
from regrow.parts.patterns.unit import Unit
from regrow.parts.regrowth.random import RandomRegrowth
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.rebound import Rebound
from regrow.parts.units.random import RandomUnits
from regrow.parts.units.taylor import UnitTaylor

CUT = ("criterion=magnitude", "floor=2", 'exclude=["classifier*"]')
EPOCHS = {"bidirectional": "epochs=8", "bidirectional_paper": "epochs=[3,5]"}
FORMS = pytest.mark.parametrize("form", list(EPOCHS))


def control(form: str, name: str, *settings: str) -> tuple[Program, Program]:
    config, _ = configure(form, settings=[*settings, EPOCHS[form]], seed=7)
    program = config.program()
    return CONTROLS[name].make(form, config.parameters, program.sparsity, 8, 7), program


def only_plan(program: Program) -> Plan:
    (stage,) = program.stages
    return stage.plan


@FORMS
@pytest.mark.parametrize("name", [row.name for row in CONTROLS])
def test_every_control_has_the_budget_scope_and_seed_of_the_recipe(form: str, name: str) -> None:
    made, program = control(form, name, *CUT)
    assert made.epochs == program.epochs == 8
    assert made.seed == program.seed == 7
    stays = (form, name) == ("bidirectional_paper", "no_regrowth")
    assert made.sparsity == (0.99 if stays else program.sparsity)
    for stage in made.stages:
        assert stage.plan.criterion == Magnitude()
        assert (stage.plan.floor, stage.plan.exclude) == (2, ("classifier*",))


@FORMS
@pytest.mark.parametrize("name", [row.name for row in CONTROLS])
def test_every_control_cuts_by_the_criterion_of_the_recipe(form: str, name: str) -> None:
    wanted = {"bidirectional": Saliency(), "bidirectional_paper": Lamp()}[form]
    made, program = control(form, name)
    for stage in (*made.stages, *program.stages):
        assert stage.plan.criterion == wanted


@FORMS
def test_the_one_way_and_the_gradual_control(form: str) -> None:
    one_way, _ = control(form, "one_way")
    assert only_plan(one_way).schedule == OneShot(0.97)
    gradual, _ = control(form, "gradual")
    schedule = only_plan(gradual).schedule
    assert isinstance(schedule, Cubic)
    assert schedule.last.value == 6
    assert only_plan(one_way).regrowth is only_plan(gradual).regrowth is None


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        ("bidirectional_paper", ("cuts=2", "ssim_below=0.8")),
        ("bidirectional", ("overshoot=0.98", "exchange=0.2", "every=2", "layers=ssim_fill")),
        (
            "bidirectional",
            (
                "regrow=gradient",
                "layers=uniform",
                "exchange=0",
                "overshoot=0.98",
                "candidates=conv*",
            ),
        ),
    ],
)
def test_random_regrowth_differs_in_the_rule_alone(form: str, settings: tuple[str, ...]) -> None:
    random, program = control(form, "random_regrowth", *settings)
    assert random != program
    stages = []
    for stage in program.stages:
        grow = stage.plan.regrowth
        if grow is not None:
            assert not isinstance(grow.rule, RandomRegrowth)
            grow = replace(grow, rule=RandomRegrowth())
        stages.append(replace(stage, plan=replace(stage.plan, regrowth=grow)))
    assert random == Program(tuple(stages), program.seed)


def test_without_regrowth_the_published_form_stays_at_the_overshoot() -> None:
    none, _ = control("bidirectional_paper", "no_regrowth", "overshoot=0.98")
    assert only_plan(none).schedule == OneShot(0.98)


REMEMBERED = ("regrow=gain", "value=remembered", "memory=0")


@pytest.mark.parametrize(
    ("end", "more"), [(4, ()), (6, ("overshoot=0.98",)), (5, ("end=5",)), (4, REMEMBERED)], ids=str
)
def test_without_regrowth_the_ramp_goes_to_the_target_and_nothing_returns(
    end: int, more: tuple[str, ...]
) -> None:
    none, program = control("bidirectional", "no_regrowth", "sparsity=0.9", "peak=3", *more)
    plan = only_plan(none)
    assert plan.schedule == Rebound(0.9, 0.9, Step.epochs(3), Step.epochs(end))
    assert only_plan(program).schedule.last == plan.schedule.last  # type: ignore[union-attr]
    assert plan.memory is None
    assert not plan.competes
    for epoch in range(8):
        assert plan.exchange_at(Step.epochs(epoch)) == 0


def test_controls_of_units_cut_units_too() -> None:
    settings = ("epochs=[3,5]", "criterion=taylor", "pattern={name='unit', round_to=2}")
    config, _ = configure("bidirectional_units", settings=settings, seed=7)
    program = config.program()
    for row in CONTROLS:
        made = row.make(config.recipe, config.parameters, program.sparsity, 8, 7)
        assert made.epochs == program.epochs == 8
        assert made.sparsity == (0.75 if row.name == "no_regrowth" else 0.5)
        for stage in made.stages:
            assert stage.plan.criterion == UnitTaylor()
            assert stage.plan.pattern == Unit(round_to=2)
        assert (made.stages[-1].plan.regrowth == RandomUnits()) == (row.name == "random_regrowth")


@pytest.mark.parametrize("name", ["random_regrowth", "no_regrowth"])
@pytest.mark.parametrize("recipe", ["one_shot", "iterative", "hybrid", "gradual", "manual"])
def test_controls_of_bidirectional_are_refused_elsewhere(recipe: str, name: str) -> None:
    config, _ = configure(recipe)
    with pytest.raises(RegrowError, match="'bidirectional_units']; leave them out"):
        CONTROLS[name].make(recipe, config.parameters, 0.9, 8, 0)
