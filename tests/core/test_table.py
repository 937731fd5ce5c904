"""Tables: every row can be found, built, written down and built again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from regrow.core.errors import RegrowError, unknown
from regrow.core.step import START, Step
from regrow.core.table import Row, Table
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.criteria import CRITERIA
from regrow.parts.patterns import PATTERNS
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.repair import REPAIRS
from regrow.parts.reparam import REPARAMS
from regrow.parts.schedule import SCHEDULES
from regrow.recipes import RECIPES

PARTS: list[Table[Any]] = [
    CRITERIA,
    PATTERNS,
    ALLOCATIONS,
    SCHEDULES,
    REPARAMS,
    REPAIRS,
    RULES,
    VALUES,
]
TABLES: list[Table[Any]] = [*PARTS, RECIPES]
# What a file would say of parts that cannot be built without it; further keywords beside.
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("allocation", "explicit"): {"sparsities": {"conv*": 0.5, "*": 0.9}},
    ("schedule", "one_shot"): {"sparsity": 0.9},
    ("schedule", "constant"): {"sparsity": 0.9, "cuts": 3, "every": "2ep"},
    ("schedule", "geometric"): {"sparsity": 0.9, "cuts": 3, "every": "500it", "initial": 0.5},
    ("schedule", "cubic"): {"sparsity": 0.9, "end": 30, "start": "5ep"},
    ("schedule", "hybrid"): {"sparsity": 0.9, "first": 0.8, "cuts": 2, "tail": "survivors"},
    ("schedule", "manual"): {"sparsities": [0.5, 0.9], "at": [0, "4ep"]},
    ("schedule", "rebound"): {"sparsity": 0.9, "overshoot": 0.95, "peak": "5ep", "end": 9},
    ("schedule", "steady"): {"sparsity": 0.9, "end": 9, "ramp": "5ep", "initial": 0.5},
    ("schedule", "patience"): {"sparsities": [0.5, 0.9], "patience": [3, 2], "mode": "min"},
    ("pattern", "n_of_m"): {"n": 1, "m": 8},
    ("pattern", "block"): {"rows": 0, "columns": 2},
    ("value", "init"): {"scheme": "xavier"},
}
ROWS = [(table, row) for table in TABLES for row in table]


def ids(item: Any) -> str:
    return item.kind if isinstance(item, Table) else item.name


@pytest.mark.parametrize(("table", "row"), [r for r in ROWS if r[0] in PARTS], ids=ids)
def test_every_part_is_built_written_and_built_again(table: Table[Any], row: Row[Any]) -> None:
    options = OPTIONS.get((table.kind, row.name), {})
    part = table.build({"name": row.name, **options})
    assert type(part) is row.make
    hash(part)
    spec = table.spec(part)
    assert spec["name"] == row.name
    again = table.build(json.loads(json.dumps(spec)))
    assert again == part
    assert table.spec(again) == spec
    assert table.build(part) is part
    if not options:
        assert table.build(row.name) == part


@pytest.mark.parametrize(("table", "row"), ROWS, ids=ids)
def test_every_row_can_be_listed(table: Table[Any], row: Row[Any]) -> None:
    assert table[row.name] is row
    assert row.source
    assert 3 < len(row.summary) < 120
    assert not row.summary.startswith(f"{row.make.__name__}(")  # a dataclass without a docstring


@pytest.mark.parametrize("table", TABLES, ids=ids)
def test_names_and_makers_are_unique(table: Table[Any]) -> None:
    assert len({row.name for row in table}) == len({row.make for row in table}) == len(list(table))


def test_options_from_a_file_become_steps_and_tuples() -> None:
    part = SCHEDULES.build({"name": "constant", "sparsity": 0.9, "cuts": 2, "every": "500it"})
    assert part.every == Step.iterations(500)  # type: ignore[union-attr]
    part = SCHEDULES.build({"name": "patience", "sparsities": [0.5], "patience": [1, 2]})
    assert part.patience == (1, 2)  # type: ignore[union-attr]


def test_misses_name_the_nearest() -> None:
    with pytest.raises(
        RegrowError, match=r"unknown criterion 'magntude'\. Did you mean 'magnitude'"
    ):
        CRITERIA.build("magntude")
    with pytest.raises(RegrowError, match=r"unknown pattern 'zzz'\. Known: block, element, n_of_m"):
        PATTERNS.build("zzz")
    with pytest.raises(
        RegrowError, match=r"unknown option of pattern 'block': 'row'\. Did you mean 'rows'"
    ):
        PATTERNS.build({"name": "block", "row": 4})
    assert str(unknown("thing", "a", [])) == "unknown thing 'a'. Known: none."


@pytest.mark.parametrize("spec", [{}, {"rows": 4}, {"name": 3}, {"name": None}])
def test_a_table_without_a_name_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(RegrowError, match=r"a pattern given as a table needs a 'name'"):
        PATTERNS.build(spec)


@pytest.mark.parametrize("spec", [None, 3, 0.5, True, ["lamp"], ("lamp",)])
def test_what_is_no_part_is_refused(spec: Any) -> None:
    with pytest.raises(RegrowError, match="a criterion is a name, a table with a 'name' or a part"):
        CRITERIA.build(spec)


def test_missing_and_senseless_options_are_one_kind_of_error() -> None:
    with pytest.raises(RegrowError, match=r"schedule 'one_shot': .*'sparsity'"):
        SCHEDULES.build("one_shot")
    with pytest.raises(RegrowError, match=r"schedule 'constant'"):
        SCHEDULES.build({"name": "constant", "sparsity": 0.9, "cuts": "many"})
    with pytest.raises(RegrowError, match=r"0:4"):
        PATTERNS.build({"name": "n_of_m", "n": 0})


def test_a_recipes_shared_keywords_are_options_too() -> None:
    program = RECIPES.build({"name": "one_shot", "criterion": "magnitude", "exclude": ["fc"]})
    assert program.stages[0].plan.criterion == CRITERIA.build("magnitude")
    assert program.stages[0].plan.exclude == ("fc",)
    with pytest.raises(RegrowError, match=r"'criterium'\. Did you mean 'criterion'"):
        RECIPES.build({"name": "one_shot", "criterium": "lamp"})
    with pytest.raises(RegrowError, match=r"unknown option of recipe 'one_shot': 'cut'"):
        RECIPES.build({"name": "one_shot", "cut": {}})


@dataclass(frozen=True)
class Stranger:
    """A part of somebody's own."""

    every: Step = START


def test_a_stranger_is_built_once_it_has_a_row_and_named_until_then() -> None:
    table = Table("thing", Row("stranger", Stranger, "-"))
    assert table.build({"name": "stranger", "every": "3it"}) == Stranger(Step.iterations(3))
    assert table.spec(Stranger(Step(2))) == {"name": "stranger", "every": "2ep"}
    with pytest.raises(RegrowError, match=r"Stranger is in no row of the criterion table"):
        CRITERIA.spec(Stranger())
