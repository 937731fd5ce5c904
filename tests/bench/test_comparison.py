"""Studies: their cells, fairness, evidence and verdicts."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_task import TRAINING, small
from torch import Tensor, nn

from regrow.bench import Splits, TensorPair, models
from regrow.bench.comparison import charts, evidence, study_file
from regrow.bench.comparison.evidence import Comparison, Row
from regrow.bench.comparison.grid import Place, Study
from regrow.bench.comparison.judgement import alarms, best, standings, verdict
from regrow.bench.comparison.page import write_study
from regrow.bench.comparison.strategies import STRATEGIES
from regrow.bench.comparison.study_file import study_of
from regrow.bench.comparison.thin import thinned
from regrow.bench.statistics import student_interval
from regrow.bench.store import Store
from regrow.bench.study import run_cells
from regrow.bench.tasks import Task
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.rng import generator
from regrow.core.table import Row as Part
from regrow.core.table import Table
from regrow.engine import plan
from regrow.parts.criteria import CRITERIA
from regrow.parts.criteria.magnitude import Magnitude

CONTROLS = {"random", "gradual magnitude", "small dense"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrow.bench.comparison.grid.find_task", lambda name: small())


def study(budget: str = "equal", own: Mapping[str, Any] | None = None, **changes: Any) -> Study:
    table = {
        "task": "small",
        "strategies": ["one_shot", "geometric"],
        "sparsities": [0.5, 0.8],
        "seeds": 2,
        "epochs": 5,
        **changes,
    }
    data = {"budget": budget, "grid": [table], "strategies": own or {}}
    return study_of(data, "a study", "study.toml")


def test_every_arm_and_the_controls_at_every_sparsity_and_seed() -> None:
    cells = study().cells()
    arms = CONTROLS | {"one_shot", "geometric"}
    expected = {(arm, s, seed) for arm in arms for s in (0.5, 0.8) for seed in (0, 1)}
    twins = {f"{arm}, shuffled" for arm in ("one_shot", "geometric", "gradual magnitude")}
    expected |= {(arm, 0.8, seed) for arm in twins for seed in (0, 1)}
    assert {(at.arm, at.sparsity, at.seed) for at in cells} == expected
    assert [at.seed for at in cells] == sorted(at.seed for at in cells)
    assert len({cell.key for cell in cells.values()}) == len(cells)
    for at, cell in cells.items():
        dense = 0 if at.arm == "small dense" else TRAINING.dense_epochs
        assert cell.epochs + dense == 7
        assert cell.seed == at.seed
    again = study(strategies=["gradual", "one_shot"], seeds=1).cells()
    shared = {cell.key for cell in cells.values()} & {cell.key for cell in again.values()}
    assert len(shared) == 2 * len(CONTROLS | {"one_shot"}) + 2


def test_criteria_patterns_trials_and_strategies_of_its_own() -> None:
    several = study(criteria=["magnitude", "lamp"], seeds=1).cells()
    arms = {at.arm for at in several if not at.arm.endswith("shuffled")}
    pairs = itertools.product(("one_shot", "geometric"), ("magnitude", "lamp"))
    assert arms == CONTROLS | {f"{strategy}, {criterion}" for strategy, criterion in pairs}
    units = study(pattern="unit", criteria=["taylor"], seeds=1).cells()
    for at, cell in units.items():
        assert at.pattern == "unit"
        assert cell.program is None or cell.program.structured
        assert cell.program is not None or "of the macs" in cell.model
    plain = study(pattern="unit", seeds=1).cells()
    named = study(pattern="unit", criteria=["norm"], seeds=1).cells()
    assert {p: c.key for p, c in plain.items()} == {p: c.key for p, c in named.items()}
    tried = study(trials=[0.5, 2.0], seeds=1).cells()
    assert len(tried) == 2 * len(study(seeds=1).cells())
    assert {cell.lr for at, cell in tried.items() if at.arm != "small dense"} == {0.025, 0.1}
    mine = {"mine": {"recipe": "hybrid", "cuts": 2, "split": 0.5, "note": "ours"}}
    cells = study(own=mine, strategies=["mine"], seeds=1).cells()
    (program,) = {c.program for at, c in cells.items() if (at.arm, at.sparsity) == ("mine", 0.8)}
    assert program is not None
    assert program.stages[0].plan.schedule.sparsities[0] == pytest.approx(0.4)  # type: ignore[union-attr]
    usual = study(
        own={"mine": {"recipe": "hybrid"}}, strategies=["mine", "hybrid"], seeds=1
    ).cells()
    keys = {(at.arm, at.sparsity): cell.key for at, cell in usual.items()}
    assert keys["mine", 0.5] == keys["hybrid", 0.5]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_ends_at_any_sparsity_within_the_budget(name: str) -> None:
    strategy = STRATEGIES[name]
    units = name == "bidirectional_units"
    for sparsity in (0.3, 0.8, 0.98):
        cut = {"pattern": "unit", "criterion": "norm"} if units else {"criterion": "magnitude"}
        program = strategy.program(sparsity, 20, 3, cut)
        assert program.sparsity == pytest.approx(sparsity)
        assert program.seed == 3
        assert program.epochs in (None, 20)
        assert sum(strategy.cycles(program, 20)) == 20


def test_the_learning_rate_starts_anew_after_each_cut() -> None:
    strategy = STRATEGIES["geometric_rewinding"]
    program = strategy.program(0.9, 22, 0, {"criterion": "magnitude"})
    assert strategy.cycles(program, 22) == (4, 4, 4, 4, 6)
    with pytest.raises(RegrowError, match="leave restart out"):
        strategy.cycles(STRATEGIES["one_shot"].program(0.9, 5, 0, {}), 5)


def test_what_is_refused() -> None:
    for changes, words in (
        ({"strategies": ["geometrc"]}, "Did you mean 'geometric'"),
        ({"sparsities": [1.5]}, "in [0, 1); got 1.5"),
        ({"sparsities": ["a"]}, "must be a list of numbers"),
        ({"seeds": 0}, "seeds=0 must be a whole number of at least 1"),
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"trials": [0.0]}, "above 0"),
        ({"strategies": []}, "a grid needs strategies"),
        ({"models": ["mpl"]}, "Did you mean 'mlp'"),
        ({"training": {"lrr": 1}}, "unknown training key"),
        ({"training": {"lr": "high"}}, "training.lr='high'"),
        ({"epochs": 2}, "geometric at 50 % in 2 epochs: 5 cuts do not fit 2 epochs"),
        ({"epochs": 1, "strategies": ["one_shot"]}, "gradual magnitude at 50 % in 1 epoch: "),
        ({"task": ["small"]}, "task=['small'] must be one name"),
        ({"pattern": ["unit"]}, "pattern=['unit'] must be a table"),
        ({"pattern": {"n": 2}}, "pattern={'n': 2} must have a name"),
        ({"training": 3}, "training=3 must be a table"),
        ({"criteria": ["magntude"]}, "Did you mean 'magnitude'"),
    ):
        with pytest.raises(RegrowError, match=re.escape(words)):
            study(**changes).cells()
    long = {"long": {"recipe": "one_shot", "epochs": 9}}
    with pytest.raises(RegrowError, match="'long' lasts 9 epochs, the others 5; make them equal"):
        study(own=long, strategies=["long"]).cells()
    assert study("unequal", own=long, strategies=["long"]).cells()
    for name, table, words in (
        ("a", {"cuts": 3}, "names no recipe"),
        ("a", 3, "strategies.a=3 must be a table"),
        ("a", {"recipe": "hybrd"}, "Did you mean 'hybrid'"),
        ("a", {"recipe": "hybrid", "split": 2}, "split=2 must be a fraction"),
        ("a", {"recipe": "hybrid", "cutz": 2}, "Did you mean 'cuts'"),
        ("a", {"recipe": "hybrid", "cuts": "two"}, "cuts='two': input should be a valid integer"),
        ("a", {"recipe": "iterative", "restart": 1}, "restart=1 must be true or false"),
        ("a", {"recipe": "one_shot", "sparsity": 0.5}, "sparsity is the grid's to say"),
        ("a", {"recipe": "one_shot", "pattern": "unit"}, "pattern is the grid's to say"),
        ("a", {"recipe": "codeq"}, "'codeq' cannot be told how much to cut"),
        ("a", {"recipe": "manual"}, "'manual' cannot be told how much to cut"),
        ("random", {"recipe": "one_shot"}, "cannot be named 'random', which means another arm"),
        ("one, two", {"recipe": "one_shot"}, "choose another name, without a comma"),
    ):
        with pytest.raises(RegrowError, match=re.escape(words)):
            study(own={name: table})
    with pytest.raises(RegrowError, match="strategies=3 must be a table"):
        study_of({"grid": [{}], "strategies": 3}, "a", "a.toml")
    with pytest.raises(RegrowError, match=r"begin one with a line \[\[grid\]\]"):
        study_of({}, "a", "a.toml")
    with pytest.raises(RegrowError, match="schema 2"):
        study_of({"schema": 2}, "a", "a.toml")
    with pytest.raises(RegrowError, match="'equal' nor 'unequal'"):
        study("fair")
    with pytest.raises(RegrowError, match="there is no study file"):
        study_file.read(Path("none.toml"))


@pytest.mark.parametrize("of", ["parameters", "macs"])
def test_a_network_built_small(of: str) -> None:
    x = torch.zeros(1, 1, 8, 8)

    def make(source: torch.Generator) -> nn.Module:
        return models.digits_cnn(generator=source)

    thin = thinned(make, lambda: x, 0.1, of)
    one, same, other = thin(generator(1)), thin(generator(1)), thin(generator(2))
    whole = sum(p.numel() for p in make(generator(0)).parameters())
    count = sum(p.numel() for p in one.parameters())
    if of == "parameters":
        assert 0.07 * whole < count <= 0.1 * whole
    widths = [one.get_submodule(f"conv{i}").weight.shape[0] for i in (1, 2, 3)]
    assert max(w / full for w, full in zip(widths, (32, 64, 64), strict=True)) <= 0.5
    assert one(x).shape == (1, 10)
    assert one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    conv = one.get_submodule("conv2").weight
    assert not torch.equal(conv, other.get_submodule("conv2").weight)
    # Drawn for its own width: the deviation of PyTorch's rule, 1 / sqrt(3 fan-in).
    assert conv.std().item() == pytest.approx((3 * conv[0].numel()) ** -0.5, rel=0.2)


def simulated(
    effects: Mapping[str, float],
    seeds: int,
    rng: np.random.Generator,
    levels: tuple[float, ...] = (0.8, 0.95),
) -> Comparison:
    """Arms whose true accuracy differs from the control's by so many points."""
    common = rng.normal(90, 1, (len(levels), seeds))
    arms: dict[str, dict[float, dict[int, Row]]] = {}
    for arm, effect in {"gradual magnitude": 0.0, **effects}.items():
        for i, level in enumerate(levels):
            for seed in range(seeds):
                test = (common[i, seed] + effect + rng.normal(0, 0.3)) / 100
                place = Place("small", "mlp", "element", arm, level, seed)
                row = Row(place, "0", test, test, level, 1, 2, 5, 2, 10, 1.0)
                arms.setdefault(arm, {}).setdefault(level, {})[seed] = row
    return Comparison("small", "mlp", "element", dict.fromkeys(range(seeds), 95.0), arms, 1)


def test_a_difference_that_is_there_is_told_and_one_that_is_not_is_not() -> None:
    rng = np.random.default_rng(0)
    truth = {"one_shot": -3.0, "geometric": 2.0, "random": -20.0, "equal": 0.0}
    found = simulated(truth, 5, rng)
    lines = " ".join(verdict(found))
    assert "At 80 % geometric" in lines
    assert "ahead of gradual magnitude" in lines
    assert "random" in lines
    assert "no difference was found for the others" in lines
    top = best(found, 0.8)
    assert top is not None
    assert (top.arm, set(top.equals)) == ("geometric", set())
    assert top.behind["random"].mean == pytest.approx(-22, abs=1)
    assert {a: s.certain for a, s in standings(found, 0.8).items()} == {
        "one_shot": True,
        "geometric": True,
        "random": True,
        "equal": False,
    }
    (ahead,) = re.findall(r"On the mean ahead of one_shot all along[^:]*: ([^.]*)", lines)
    assert "geometric" in ahead.split("; ")
    same = " ".join(verdict(simulated({"one_shot": 0.0}, 5, rng)))
    assert "At 80 % and 95 % no difference from gradual magnitude was found." in same
    assert "a look, not a claim" in " ".join(verdict(simulated(truth, 3, rng)))
    assert "too few even for a look" in " ".join(verdict(simulated(truth, 2, rng)))
    # Twins are for the alarm, and nothing is said of them.
    found.arms["one_shot, shuffled"] = {0.8: {0: found.arms["one_shot"][0.8][0]}}
    assert "look" not in " ".join(verdict(found))


def test_the_headline_names_what_is_certain_not_the_best_mean(tmp_path: Path) -> None:
    found = simulated({"sound": 2.0, "wild": 0.0}, 5, np.random.default_rng(0))
    for level, rows in found.arms["wild"].items():
        lucky = {s: replace(row, test=row.test + 0.3 * (s == 0)) for s, row in rows.items()}
        found.arms["wild"][level] = lucky
    top = best(found, 0.8)
    assert top is not None
    assert top.arm == "wild"
    out = tmp_path / "page.html"
    write_study("s", [found], out, equal=True, missing=0, cells="cells", command="regrow report s")
    assert "Better than gradual magnitude at 80 %, 95 %: sound<" in out.read_text()


@pytest.mark.parametrize(("change", "word"), [(-8.0, "Falling behind"), (8.0, "Overtaking")])
def test_who_passes_whom_is_told_the_right_way_round(change: float, word: str) -> None:
    found = simulated({"one_shot": 0.0, "late": -change / 2}, 5, np.random.default_rng(0))
    late = found.arms["late"]
    late[0.95] = {s: replace(row, test=row.test + change / 100) for s, row in late[0.95].items()}
    (line,) = (line for line in verdict(found) if "late at" in line)
    assert re.match(rf"{word} one_shot, with 95 % intervals: .*late at (8[5-9]|9[0-4])\.\d %", line)
    assert "all along" not in " ".join(each for each in verdict(found) if "late" in each)


def test_alarms_are_for_what_is_as_bad_as_chance() -> None:
    def warned(seed: int, **arms: float) -> list[str]:
        named = {name.replace("__", ", "): mean for name, mean in arms.items()}
        truth = {"random": -30.0, "gradual magnitude, shuffled": -20.0, **named}
        return [line.split(" was")[0] for line in alarms(simulated(truth, 5, rng(seed)))]

    def rng(seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)

    known = {"cut__magnitude": -2.0, "cut__magnitude__shuffled": -20.0}
    assert warned(0, **known, cut__sound=-5.0, cut__sound__shuffled=-29.0) == []
    assert warned(1, **known, cut__broken=-29.0, cut__broken__shuffled=-29.0) == ["cut, broken"]
    assert warned(2, **known, cut__worse=-40.0, cut__worse__shuffled=-29.0) == ["cut, worse"]
    assert warned(3, alone=-31.0) == ["alone"]
    # Another strategy's twin tells nothing: with more cuts it is worse than this one's.
    assert warned(4, **known, once=-1.0, once__shuffled=-1.1) == []
    assert warned(5, cut__one=-1.0, cut__one__shuffled=-1.1) == []
    # Collapsed at one sparsity with sound scores, as the other tells.
    found = simulated({"random": -30.0, "deep": -1.0}, 5, rng(4))
    last = found.arms["deep"][0.95]
    found.arms["deep"][0.95] = {s: replace(row, test=row.test - 0.5) for s, row in last.items()}
    assert alarms(found) == []
    # Far ahead of its twin on the mean, but with a spread beyond any certainty.
    twins = {"cut, wild, shuffled": -30.0, "cut, magnitude, shuffled": -20.0}
    arms = {"cut, magnitude": -2.0, "cut, wild": -5.0, **twins}
    found = simulated({"random": -30.0, **arms}, 5, rng(5))
    for level, rows in found.arms["cut, wild"].items():
        wild = {s: replace(row, test=row.test - 0.45 * (s == 0)) for s, row in rows.items()}
        found.arms["cut, wild"][level] = wild
    assert alarms(found) == []


def test_without_any_difference_one_is_claimed_as_seldom_as_the_level_says() -> None:
    rng, trials = np.random.default_rng(1), 300
    arms = {f"arm {i}": 0.0 for i in range(6)}
    claimed = 0
    for _ in range(trials):
        found = simulated(arms, 5, rng, (0.9,))
        claimed += any(s.certain for s in standings(found, 0.9).values())
    assert claimed / trials <= 0.08


def test_trials_are_chosen_on_validation_data_and_the_table_survives_its_file() -> None:
    rows = []
    for trial, validation, test in ((0.5, 0.9, 0.1), (1.0, 0.8, 0.99)):
        for seed in (0, 1):
            place = Place("small", "mlp", "element", "one_shot", 0.8, seed, trial)
            rows.append(Row(place, f"k{trial}{seed}", test, validation, 0.8, 1, 5, 5, 2, 40, 1.25))
    dense = Place("small", "mlp", "element", "dense", 0.0, 0)
    rows.append(Row(dense, "d", 0.97, 0.96, 0.0, 5, 5, 2, 0, 16, 0.5))
    (found,) = evidence.compare(rows)
    assert found.accuracy("one_shot", 0.8) == pytest.approx({0: 10.0, 1: 10.0})
    assert found.trials == 2
    assert found.dense == pytest.approx({0: 97.0})
    assert evidence.rows_of(evidence.csv_of(rows)) == rows


def test_an_arm_of_two_names_counts_once() -> None:
    rng = np.random.default_rng(2)
    table = simulated({"one_shot": -3.0, "random": -20.0}, 5, rng)
    rows = [
        replace(row, cell=f"{arm}{level}{seed}")
        for arm, levels in table.arms.items()
        for level, by in levels.items()
        for seed, row in by.items()
    ]

    def named(row: Row, old: str, new: str) -> Row:
        return replace(row, place=replace(row.place, arm=new)) if row.place.arm == old else row

    names = (("gradual magnitude", "gradual"), ("one_shot", "mine"), ("one_shot", "ours"))
    more = [named(row, old, new) for old, new in names for row in rows if row.place.arm == old]
    # A twin is no further name: the lack of it would hide a broken criterion.
    twins = [named(row, "random", f"{arm}, shuffled") for arm in ("one_shot", "mine", "near")
             for row in rows if row.place.arm == "random"]  # fmt: skip
    near = [named(row, "one_shot", "near") for row in rows if row.place.arm == "one_shot"]
    near[0] = replace(near[0], cell="another")
    (plain,) = evidence.compare([*rows, *near])
    (found,) = evidence.compare([*more[:10], *rows, *more[10:], *twins, *near])
    shuffled = {"one_shot, shuffled", "near, shuffled"}
    assert set(found.arms) == {"gradual magnitude", "one_shot", "random", "near", *shuffled}
    assert found.also == {"gradual magnitude": ["gradual"], "one_shot": ["mine", "ours"]}
    assert standings(found, 0.8) == standings(plain, 0.8)
    told = verdict(found)
    assert told[:-2] == verdict(plain)
    assert told[-2] == "gradual is gradual magnitude under another name: the same cells."
    assert told[-1] == "mine and ours are one_shot under another name: the same cells."


def _reversed(evidence: Evidence) -> dict[str, Tensor]:
    return {name: -w.abs() for name, w in evidence[Need("weight")].items()}


def _of_another_layer(evidence: Evidence) -> dict[str, Tensor]:
    weights = evidence[Need("weight")]
    flat = torch.cat([w.flatten() for w in reversed(list(weights.values()))]).abs()
    found, start = {}, 0
    for name, w in weights.items():
        found[name] = flat[start : start + w.numel()].view(w.shape)
        start += w.numel()
    return found


def _off_by_one(evidence: Evidence) -> dict[str, Tensor]:
    return {n: w.abs().flatten().roll(1).view(w.shape) for n, w in evidence[Need("weight")].items()}


BROKEN = {"reversed": _reversed, "another layer": _of_another_layer, "off by one": _off_by_one}


def few_tell() -> Task:
    """Sixty inputs of which six tell the class, so that it matters which weights stay."""

    def points(seed: int, count: int) -> TensorPair:
        source = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 3
        inputs = torch.randn(count, 60, generator=source)
        centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
        inputs[:, ::10] += 2 * centres[labels]
        return TensorPair(inputs, labels)

    def network(_: torch.Generator) -> nn.Module:
        return nn.Sequential(nn.Linear(60, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))

    parts = Splits(points(1, 300), points(2, 60), points(3, 300))
    training = replace(TRAINING, dense_epochs=12, weight_decay=5e-3, batch_size=32)
    return Task("few tell", lambda _: parts, {"mlp": network}, training)


def test_planted_broken_criteria_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Planted(Magnitude):
        how: str = ""

        def score(self, evidence: Evidence) -> dict[str, Tensor]:
            return BROKEN[self.how](evidence)

    rows = [Part(name, partial(Planted, how=name), "-") for name in BROKEN]
    table = Table("criterion", *CRITERIA, *rows, Part("planted", Planted, "-"))
    for module in ("regrow.recipes.common", "regrow.parts.criteria"):
        monkeypatch.setattr(f"{module}.CRITERIA", table)
    monkeypatch.setitem(plan._TABLES, "criterion", table)
    monkeypatch.setattr("regrow.bench.comparison.grid.find_task", lambda name: few_tell())
    asked = study(
        strategies=["one_shot"],
        criteria=["magnitude", *BROKEN],
        sparsities=[0.97],
        seeds=6,
        epochs=2,
    )
    cells = {at: cell for at, cell in asked.cells().items() if at.arm != "small dense"}
    store = Store(tmp_path, device="cpu")
    run_cells(list(cells.values()), store)
    (found,) = evidence.compare(evidence.gather(cells, store))
    told = alarms(found)
    named = {line.partition(" was not")[0] for line in told}
    assert named >= {f"one_shot, {name}" for name in BROKEN}
    assert not any(line.startswith("one_shot, magnitude") for line in told)


def test_the_page_tells_all_and_the_same_evidence_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    found = simulated({"one_shot": -3.0, "geometric <b>": 2.0, "random": -20.0}, 5, rng)
    options = {"equal": False, "missing": 2, "cells": "cells", "command": "regrow report x"}
    pages = [
        write_study("a & b", [found], tmp_path / name, **options).read_bytes()  # type: ignore[arg-type]
        for name in ("one.html", "two.html")
    ]
    assert pages[0] == pages[1]
    text = pages[0].decode()
    assert "<h1>a &amp; b</h1>" in text
    assert "geometric &lt;b&gt;" in text
    assert "<b>" not in text
    assert "2 cells of this study are not finished" in text
    assert "unequal budgets" in text
    assert text.count('<svg class="chart"') == 6
    assert 'href="cells/0/result.json"' in text
    assert "http" not in re.sub(r'"http://www.w3.org[^"]*"', "", text)


def test_a_drawing_that_stands_alone_names_its_arms() -> None:
    lines = [charts.Line(slot, {0.8: student_interval([90, 91])}) for slot in (1, 2)]
    names = re.compile(">(dense|one &lt;shot|ramp)<")
    drawn = partial(charts.over_sparsity, lines, student_interval([95]), 0.0, 800, "a label")
    assert names.findall(drawn(["one <shot", "ramp"])) == ["dense", "one &lt;shot", "ramp"]
    assert not names.findall(drawn())


def test_a_table_alone_does_not_tell_whether_budgets_were_equal(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    found = simulated({"one_shot": 0.0, "geometric": 0.0}, 5, rng)
    options: dict[str, Any] = {"equal": None, "missing": 0, "cells": None, "command": ""}
    page = tmp_path / "page.html"
    text = write_study("a", [found], page, **options).read_text()
    assert "does not tell" not in text
    assert "<a href=" not in text
    level, (seed, row) = 0.8, next(iter(found.arms["geometric"][0.8].items()))
    early = {**found.arms["geometric"], level: {seed: replace(row, epochs=row.epochs - 3)}}
    found = replace(found, arms={**found.arms, "geometric": early})
    text = write_study("a", [found], page, **options).read_text()
    total = row.dense_epochs + row.epochs
    assert f"Arms spent {total - 3} to {total} epochs in all" in text


def test_a_study_from_its_file_to_its_records(tmp_path: Path) -> None:
    cells = study(sparsities=[0.8], seeds=1).cells()
    store = Store(tmp_path, device="cpu")
    now = run_cells(list(cells.values()), store)
    assert now.done == now.cells == len(cells) + 1
    rows = evidence.gather(cells, store)
    assert len(rows) == now.cells
    for row in rows:
        record = json.loads((tmp_path / "cells" / row.cell / "result.json").read_text())
        assert record["result"]["test_accuracy"] == row.test
        spent = row.epochs + row.dense_epochs
        assert spent == (TRAINING.dense_epochs if row.place.arm == "dense" else 7)
