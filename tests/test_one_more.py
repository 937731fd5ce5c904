"""The price of a new part: one file and one row; no engine code is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from regrow.core.evidence import Evidence, Need
from regrow.core.step import EPOCH, Step
from regrow.core.table import Row, Table
from regrow.engine import plan as plan_module
from regrow.engine.attach import attach
from regrow.engine.event import decide
from regrow.engine.plan import Plan
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth
from regrow.model.inventory import Entry, Inventory
from regrow.parts.criteria import CRITERIA
from regrow.parts.regrowth import RULES
from regrow.parts.schedule import SCHEDULES
from regrow.parts.schedule.manual import Manual
from regrow.parts.schedule.one_shot import OneShot
from regrow.recipes import one_shot
from regrow.recipes.common import Cut, plan, sparse_start


@dataclass(frozen=True)
class Power:
    """|w|^p, a toy criterion.

    Source: this file.
    """

    p: float = 2.0
    needs = frozenset({Need("weight")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        return {name: w.abs() ** self.p for name, w in evidence[Need("weight")].items()}


@dataclass(frozen=True)
class Halving:
    """Half of what is left, every so often, a toy schedule."""

    sparsity: float
    every: Step = EPOCH

    @property
    def last(self) -> Step:
        return Step(self.every.value * 3, self.every.unit)

    def target(self, step: Step) -> float | None:
        times, rest = divmod(step.value, self.every.value)
        if step.unit != self.every.unit or rest or step.value > self.last.value:
            return None
        return max(0.5 ** (times + 1), 1 - self.sparsity)


@dataclass(frozen=True)
class Last:
    """The removed entries of highest index return, a toy regrowth rule."""

    needs = frozenset({Need("weight", "dense")})

    def score(self, evidence: Evidence) -> dict[str, Tensor]:
        dense = evidence[Need("weight", "dense")]
        return {n: torch.arange(w.numel()).view(w.shape).float() for n, w in dense.items()}


ENTRIES = Inventory((Entry("a.weight", (4, 5), "linear"), Entry("b.weight", (5, 4), "linear")))
WEIGHTS = {
    e.name: torch.randn(e.shape, generator=torch.Generator().manual_seed(i))
    for i, e in enumerate(ENTRIES)
}
ONES = {e.name: torch.ones(e.shape, dtype=torch.bool) for e in ENTRIES}
EVIDENCE = Evidence({Need("weight"): WEIGHTS, Need("weight", "dense"): WEIGHTS})


def with_row(table: Table[Any], row: Row[Any]) -> Table[Any]:
    return Table(table.kind, *table, row)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, Table[Any]]:
    """The tables as they would be with one row more each."""
    extended = {
        "criterion": with_row(CRITERIA, Row("power", Power, "-")),
        "schedule": with_row(SCHEDULES, Row("halving", Halving, "-")),
        "rule": with_row(RULES, Row("last", Last, "-")),
    }
    for name, table in extended.items():
        monkeypatch.setitem(plan_module._TABLES, name, table)
    monkeypatch.setattr(plan_module, "RULES", extended["rule"])
    return extended


def test_a_new_criterion_cuts(tables: dict[str, Table[Any]]) -> None:
    part = tables["criterion"].build({"name": "power", "p": 3.0})
    assert "power" not in {row.name for row in CRITERIA}
    ours = decide(Plan(OneShot(0.7), part), ENTRIES, ONES, 0.3, EVIDENCE)
    known = decide(Plan(OneShot(0.7)), ENTRIES, ONES, 0.3, EVIDENCE)
    assert sum(int(mask.sum()) for mask in ours.keep.values()) == 12
    assert all(torch.equal(ours.keep[n], known.keep[n]) for n in WEIGHTS)  # the same order as |w|
    assert one_shot(criterion=part).stages[0].plan.criterion == Power(3.0)


def test_a_new_schedule_sets_the_pace(tables: dict[str, Table[Any]]) -> None:
    part = tables["schedule"].build({"name": "halving", "sparsity": 0.9, "every": "3ep"})
    program = Program((Stage(Plan(part), Step(12)),))
    masks: dict[str, Tensor] = dict(ONES)
    counts = []
    for epoch in range(12):
        density = part.target(Step(epoch))
        if density is not None:
            masks = dict(decide(program.stages[0].plan, ENTRIES, masks, density, EVIDENCE).keep)
            counts.append(sum(int(mask.sum()) for mask in masks.values()))
    assert counts == [20, 10, 5, 4]


def test_a_new_rule_regrows(tables: dict[str, Table[Any]]) -> None:
    rule = tables["rule"].build("last")
    masks = {n: torch.zeros_like(mask) for n, mask in ONES.items()}
    for mask in masks.values():
        mask[0, 0] = True
    plan = Plan(OneShot(0.5), regrowth=Regrowth(rule))
    keep = decide(plan, ENTRIES, masks, 0.2, EVIDENCE).keep
    for mask in keep.values():
        assert mask.reshape(-1).nonzero().reshape(-1).tolist() == [0, 17, 18, 19]


def test_new_parts_are_written_and_read(tables: dict[str, Table[Any]]) -> None:
    plan = Plan(Halving(0.9, Step(3)), Power(1.5), regrowth=Regrowth(Last()))
    program = Program((Stage(plan, Step(12)),))
    assert Program.from_json(program.to_json()) == program


def test_the_recipe_of_the_contributors_page() -> None:
    """As the page says it: composed of parts that are there, and nothing else is touched."""
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(def sparse_to_dense.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {
        "Cut": Cut, "Manual": Manual, "Program": Program, "RULES": RULES, "Regrowth": Regrowth,
        "Stage": Stage, "Step": Step, "Unpack": Unpack, "plan": plan, "sparse_start": sparse_start,
    }  # fmt: skip
    exec(code, names)
    program = names["sparse_to_dense"](0.8, 4)
    assert Program.from_json(program.to_json()) == program
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = (torch.randn(8, 6), torch.arange(8) % 3)

    def loss_fn(network: nn.Module, given: Any) -> Tensor:
        return nn.functional.cross_entropy(network(given[0]), given[1])

    handle = attach(model, optimizer, program, loss_fn=loss_fn, data=[batch])
    found = [handle.sparsity]
    for _ in range(4):
        loss_fn(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        handle.epoch_end()
        found.append(handle.sparsity)
    handle.finalize()
    assert found == pytest.approx([0.8, 0.8, 0.75, 0.75, 0.75])
