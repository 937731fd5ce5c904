"""The controls of a fair comparison."""

from __future__ import annotations

import pytest

from regrow.bench.arms import CONTROLS
from regrow.bench.config import configure
from regrow.core.errors import RegrowError
from regrow.engine.program import Program
from regrow.parts.criteria.magnitude import Magnitude
from regrow.parts.regrowth.random import RandomRegrowth
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.one_shot import OneShot

CUT = ("criterion=magnitude", "floor=2", 'exclude=["classifier*"]')


def control(name: str, *settings: str) -> tuple[Program, Program]:
    config, _ = configure("bidirectional", settings=[*settings, "epochs=[3,5]"], seed=7)
    program = config.program()
    return CONTROLS[name].make(config.parameters, program.sparsity, 8, 7), program


@pytest.mark.parametrize("name", [row.name for row in CONTROLS])
def test_every_control_has_the_budget_scope_and_seed_of_the_recipe(name: str) -> None:
    made, program = control(name, *CUT)
    assert made.epochs == program.epochs == 8
    assert made.seed == program.seed == 7
    assert made.sparsity == (0.99 if name == "no_regrowth" else program.sparsity)
    for stage in made.stages:
        assert stage.plan.criterion == Magnitude()
        assert (stage.plan.floor, stage.plan.exclude) == (2, ("classifier*",))


def test_what_sets_each_control_apart() -> None:
    one_way, _ = control("one_way")
    assert [stage.plan.schedule for stage in one_way.stages] == [OneShot(0.97)]
    gradual, _ = control("gradual")
    schedule = gradual.stages[0].plan.schedule
    assert isinstance(schedule, Cubic)
    assert schedule.last.value == 6
    none, _ = control("no_regrowth", "overshoot=0.98")
    assert [stage.plan.schedule for stage in none.stages] == [OneShot(0.98)]
    random, program = control("random_regrowth", "cuts=2", "ssim_below=0.8")
    assert len(random.stages) == len(program.stages)
    for mine, theirs in zip(random.stages, program.stages, strict=True):
        assert mine.length == theirs.length
        assert mine.plan.schedule == theirs.plan.schedule
        if theirs.plan.regrowth is not None:
            assert mine.plan.regrowth is not None
            assert isinstance(mine.plan.regrowth.rule, RandomRegrowth)
            assert not isinstance(theirs.plan.regrowth.rule, RandomRegrowth)
            assert mine.plan.regrowth.ssim_below == 0.8


@pytest.mark.parametrize("name", ["random_regrowth", "no_regrowth"])
def test_controls_of_bidirectional_are_refused_elsewhere(name: str) -> None:
    config, _ = configure("one_shot")
    with pytest.raises(RegrowError, match="belong to the recipe 'bidirectional'"):
        CONTROLS[name].make(config.parameters, 0.9, 8, 0)
