"""Programs: written and read without loss, and refused when they make no sense."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.core.step import Step
from regrow.engine.plan import Plan, plan_of, plan_spec
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.criteria import CRITERIA
from regrow.parts.patterns import PATTERNS
from regrow.parts.patterns.nm import NofM
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.repair import REPAIRS
from regrow.parts.schedule.constant import Constant
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.geometric import Geometric
from regrow.parts.schedule.hybrid import Hybrid
from regrow.parts.schedule.manual import Manual
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.patience import Patience
from regrow.parts.schedule.steady import Steady
from regrow.recipes import RECIPES, bidirectional_paper, iterative, one_shot

EP, IT = Step.epochs, Step.iterations
GROW = Regrowth(RULES.build("random"))
SCHEDULES = [
    OneShot(0.9),
    Constant(0.9, 3, EP(2)),
    Geometric(0.9, 3, IT(7), 0.2),
    Cubic(0.9, EP(9), EP(1), EP(2)),
    Hybrid(0.9, 0.5, 3, tail="survivors"),
    Manual((0.5, 0.9), (EP(0), EP(4))),
    Steady(0.9, EP(9), EP(2), EP(5), 0.3),
    Steady(0.9, IT(29), IT(7)),
    Patience((0.5, 0.9), (3, 1), 0.01, 30, "loss", "min"),
]


def build(table: Any, name: str) -> Any:
    return table.build({"name": name, **({"sparsities": {"*": 0.5}} if name == "explicit" else {})})


def program(*schedules: Any, grow: Regrowth | None = None) -> Program:
    return Program(tuple(Stage(Plan(s, regrowth=grow), EP(20)) for s in schedules))


def there_and_back(whole: Program) -> None:
    text = whole.to_json()
    again = Program.from_json(text)
    assert again == whole
    assert hash(again) == hash(whole)
    assert again.to_json() == text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_where_a_program_starts() -> None:
    plain = one_shot(0.9, 3)
    assert plain.start == "dense"
    assert "start" not in json.loads(plain.to_json())  # keys of older results stay
    first = replace(plain, start="initial")
    assert first != plain
    assert Program.from_json(first.to_json()) == first
    with pytest.raises(RegrowError, match="neither 'dense' nor 'initial'"):
        replace(plain, start="end")


@pytest.mark.parametrize("row", list(RECIPES), ids=lambda row: row.name)
def test_every_recipe_is_written_and_read(row: Any) -> None:
    there_and_back(row.make())
    cut = {} if row.name == "codeq" else {"criterion": "taylor", "floor": 4}
    there_and_back(row.make(seed=3, exclude=("fc",), **cut))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda part: type(part).__name__)
def test_every_schedule_is_written_and_read(schedule: Any) -> None:
    length = None if isinstance(schedule, Patience) else Step(30, schedule.last.unit)
    there_and_back(Program((Stage(Plan(schedule), length),), seed=7))


@pytest.mark.parametrize(
    ("field", "table", "name"),
    [
        (field, table, row.name)
        for field, table in (
            ("criterion", CRITERIA),
            ("allocation", ALLOCATIONS),
            ("pattern", PATTERNS),
            ("repair", REPAIRS),
            ("rule", RULES),
            ("value", VALUES),
        )
        for row in table
        if row.name != "unit"  # of plans of units
    ],
)
def test_every_part_is_written_and_read(field: str, table: Any, name: str) -> None:
    part = build(table, name)
    if field in ("rule", "value"):
        grow = Regrowth(**{"rule": RULES.build("random"), field: part})
        plan = Plan(OneShot(0.5), regrowth=grow, memory=0.0)
    elif name == "learned":
        plan = Plan(OneShot(0.5), regrowth=Regrowth(RULES.build("random"), allocation=part))
    else:
        plan = Plan(OneShot(0.5), **{field: part})
    there_and_back(Program((Stage(plan, EP(3)),)))
    assert getattr(
        plan if field in ("criterion", "allocation", "repair") else part, "needs", set()
    ) <= {*plan.needs}


def test_all_other_fields_come_back() -> None:
    grow = Regrowth(
        RULES.build("reference"),
        VALUES.build({"name": "init", "scheme": "xavier"}),
        ALLOCATIONS.build("ssim_fill"),
        ("conv*", "fc"),
        0.25,
    )
    plan = Plan(OneShot(0.5), regrowth=grow, include=("a*",), exclude=("ab", "ac"), floor=3)
    whole = Program((Stage(plan, IT(500), keep_reference=True), Stage(plan, EP(2))), 99)
    there_and_back(whole)
    assert whole.needs == {Need("weight"), Need("weight", "reference"), Need("damage")}


@pytest.mark.parametrize("criterion", ["saliency", "taylor", "fisher", "woodfisher"])
def test_gradients_are_read_as_in_training_unless_a_file_is_older(criterion: str) -> None:
    plan = Plan(OneShot(0.5), CRITERIA.build(criterion))
    assert plan.statistics == "batch"
    there_and_back(Program((Stage(plan, EP(3)),)))
    there_and_back(Program((Stage(replace(plan, statistics="running"), EP(3)),)))
    spec = plan_spec(plan)
    assert spec.pop("statistics") == "batch"
    assert plan_of(spec) == replace(plan, statistics="running")


def test_statistics_matter_only_where_gradients_of_the_live_network_are_read() -> None:
    grow = Regrowth(RULES.build("saliency"))  # of the dense network
    for plan in (Plan(OneShot(0.5)), Plan(OneShot(0.5), regrowth=grow)):
        assert plan.statistics == "running"
        assert "statistics" not in plan_spec(plan)
        assert plan == replace(plan, statistics="batch")
    assert Plan(OneShot(0.5), regrowth=Regrowth(RULES.build("newton"))).statistics == "batch"
    with pytest.raises(RegrowError, match="statistics='mean' is neither"):
        Plan(OneShot(0.5), statistics="mean")  # type: ignore[arg-type]


def test_equal_programs_give_equal_text() -> None:
    one = bidirectional_paper(ssim_below=0, epochs=(3, 3))
    other = bidirectional_paper(ssim_below=0.0, epochs=[3, 3])
    assert one == other
    assert one.to_json() == other.to_json()
    assert program(OneShot(0)).to_json() == program(OneShot(0.0)).to_json()
    assert one.to_json() != bidirectional_paper(ssim_below=0.1, epochs=(3, 3)).to_json()


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"stages": [], "seed": 0}', '{"stages": [1], "seed": 0}']
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(RegrowError, match=r"no regrow program|at least one stage"):
        Program.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": {"name": "magnitud"}}, "Did you mean 'magnitude'"),
        ({"criterium": "lamp"}, "unknown key of a plan: 'criterium'. Did you mean 'criterion'"),
        ({"criterion": {"name": "lamp", "p": 2}}, "unknown option of criterion 'lamp'"),
        ({"schedule": {"name": "one_shot", "sparsity": 97}}, "For 97 % write 0.97"),
        ({"regrowth": {"rule": "random", "valu": "zero"}}, "'valu'. Did you mean 'value'"),
        ({"schedule": None}, "a schedule is a name, a table with a 'name' or a part; got None"),
        ({"floor": -1}, "floor=-1 would let layers be emptied"),
    ],
)
def test_a_slip_in_a_file_is_named(change: dict[str, Any], message: str) -> None:
    data = json.loads(program(OneShot(0.5)).to_json())
    data["stages"][0]["plan"].update(change)
    with pytest.raises(RegrowError, match=re.escape(message)):
        Program.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "data", [{"plan": []}, {"plan": None}, {"length": "soon"}, {"length": -3}, {"length": []}]
)
def test_a_stage_that_is_none_is_refused(data: dict[str, Any]) -> None:
    whole = json.loads(program(OneShot(0.5)).to_json())
    whole["stages"][0].update(data)
    with pytest.raises(RegrowError):
        Program.from_json(json.dumps(whole))


@pytest.mark.parametrize(
    ("schedule", "length", "message"),
    [
        (OneShot(0.5), None, "stage 1 of 1 needs a length"),
        (OneShot(0.5), EP(0), "needs a length of at least one"),
        (Steady(0.5, EP(3)), EP(3), "lasts 3ep, but the last event"),
        (
            Constant(0.5, 4, EP(5)),
            EP(15),
            "lasts 15ep, but the last event of its schedule falls on",
        ),
        (Cubic(0.5, IT(100), IT(0), IT(1)), IT(100), "lasts 100it"),
        (Manual((0.1, 0.5), (EP(0), EP(3))), EP(3), "falls on 3ep; make the stage longer"),
        (Patience((0.5,)), EP(5), "ends by its signal; give it no length"),
    ],
)
def test_a_stage_and_its_schedule_must_fit(schedule: Any, length: Any, message: str) -> None:
    with pytest.raises(RegrowError, match=re.escape(message)):
        Program((Stage(Plan(schedule), length),))


def test_the_shortest_stage_that_fits() -> None:
    assert Program((Stage(Plan(Constant(0.5, 4, EP(5))), EP(16)),)).epochs == 16
    assert Program((Stage(Plan(OneShot(0.5)), EP(1)),)).sparsity == 0.5


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ([OneShot(0.9), OneShot(0.8)], "stage 2 of 2 goes from sparsity 0.9 back to 0.8"),
        ([Manual((0.9, 0.5, 0.95), (EP(0), EP(1), EP(2)))], "from sparsity 0.9 back to 0.5"),
        ([OneShot(0.5), Geometric(0.9, 5)], "stage 2 of 2 goes from sparsity 0.5 back to"),
        ([OneShot(0.5), Cubic(0.9, EP(9))], "stage 2 of 2 goes from sparsity 0.5 back to 0 "),
    ],
)
def test_a_falling_sparsity_needs_a_rule(schedules: list[Any], message: str) -> None:
    with pytest.raises(RegrowError, match=re.escape(message)):
        program(*schedules)
    program(*schedules, grow=GROW)


def test_a_stage_that_starts_where_the_last_ended_needs_no_rule() -> None:
    program(
        OneShot(0.5),
        Geometric(0.8, 3, initial=0.5),
        Cubic(0.9, EP(9), initial=0.8),
        Constant(0.95, 4, initial=0.9),
        OneShot(0.95),
    )


def test_patience_is_checked_like_other_schedules() -> None:
    with pytest.raises(RegrowError, match=r"stage 2 of 2 goes from sparsity 0\.9 back to 0\.5"):
        Program((Stage(Plan(OneShot(0.9)), EP(1)), Stage(Plan(Patience((0.5, 0.95))))))


@pytest.mark.parametrize(
    "other", [{"pattern": NofM(1, 4)}, {"include": ("conv*",)}, {"exclude": ("fc",)}]
)
def test_stages_share_pattern_and_scope(other: dict[str, Any]) -> None:
    stages = (Stage(Plan(OneShot(0.5)), EP(1)), Stage(Plan(OneShot(0.6), **other), EP(1)))
    with pytest.raises(RegrowError, match="stage 2 of 2 has another pattern or scope"):
        Program(stages)


def test_a_program_without_stages_is_refused() -> None:
    with pytest.raises(RegrowError, match="at least one stage"):
        Program(())


def test_the_length_of_a_program() -> None:
    assert bidirectional_paper(epochs=(7, 5)).epochs == 12
    assert iterative(patience=3).epochs is None
    assert Program((Stage(Plan(OneShot(0.5)), IT(9)),)).epochs is None
    two = (Stage(Plan(OneShot(0.5)), EP(9)), Stage(Plan(OneShot(0.6)), EP(4)))
    assert (Program(two).epochs, Program(two).sparsity) == (13, 0.6)


def test_needs_are_the_union_of_all_parts() -> None:
    grow = Regrowth(RULES.build("gradient"), VALUES.build("dense"))
    plan = Plan(OneShot(0.5), CRITERIA.build("fisher"), regrowth=grow)
    assert plan.needs == {Need("gradient_square"), Need("gradient"), Need("weight", "dense")}
    damaged = Regrowth(RULES.build("gradient"), ssim_below=0.5)
    assert Need("damage") in Plan(OneShot(0.5), regrowth=damaged).needs


def test_learned_budgets_are_for_what_returns() -> None:
    learned, rule = ALLOCATIONS.build("learned"), RULES.build("random")
    with pytest.raises(RegrowError, match="not for what is cut"):
        Plan(OneShot(0.5), allocation=learned)
    with pytest.raises(RegrowError, match="exchange happens too often"):
        Regrowth(rule, allocation=learned, exchange=0.1)
