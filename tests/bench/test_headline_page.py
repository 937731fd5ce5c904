"""The page of the headline study: its numbers by hand, its choices, and its figures."""

from __future__ import annotations

import importlib
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regrow.bench.statistics import holm, student_interval, student_p

HEADLINE = Path(__file__).resolve().parents[2] / "experiments" / "headline"
TOTAL = 10_000
SVG = "{http://www.w3.org/2000/svg}"
TEXT = f"{SVG}text"
# Test and validation accuracy by seed. By test the best one-way arm is gradual_saliency, by
# validation gradual_75, and by validation over all seeds, not the common ones, one_way.
TEST = {
    "one_way": (0.70, 0.72, 0.71, 0.90),
    "gradual_saliency": (0.78, 0.79, 0.80),
    "gradual_75": (0.74, 0.75, 0.76),
    "gradual_distilled": (0.77, 0.77, 0.77),
    "paper": (0.75, 0.77, 0.76),
    "rule_random": (0.40, 0.42, 0.41),
    "frozen": (0.76,),
}
VALIDATION = {
    **TEST,
    "one_way": (0.70, 0.72, 0.71, 0.98),
    "gradual_saliency": (0.73, 0.73, 0.73),
    "gradual_distilled": (0.99, 0.99, 0.99),
}


@pytest.fixture(scope="module")
def page() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HEADLINE))
        yield importlib.import_module("page")


@pytest.fixture(scope="module")
def figures(page: ModuleType) -> ModuleType:
    return importlib.import_module("figures")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    text = "# Page\n\n<!-- small: begin -->\nold\n<!-- small: end -->\n\nafter\n"
    (tmp_path / "bidirectional.md").write_text(text, encoding="utf-8")
    return tmp_path


def entry(seed: int, test: float, validation: float, sparsity: float) -> dict[str, Any]:
    kept = round(TOTAL * (1 - sparsity))
    return {
        "facts": {"task": "cifar10-20000", "model": "net", "seed": seed},
        "result": {
            "kept": kept,
            "total": TOTAL,
            "validation_accuracy": validation,
            "test_accuracy": test,
            "epochs": 8 if sparsity else 12,
            "steps": 80 if sparsity else 120,
            "rehearsed": 0,
        },
        "environment": {
            "processor": "Abacus",
            "threads": 1,
            "precision": "fp32",
            "torch": "2.9",
            "date": f"2026-01-0{1 + seed}",
        },
    }


def record(*targets: float) -> dict[str, Any]:
    cells = [
        {
            "arm": f"{arm}@{100 * target:g}",
            **entry(seed, value, VALIDATION[arm][seed], target),
            "seed": seed,
        }
        for target in targets
        for arm, values in TEST.items()
        for seed, value in enumerate(values)
    ]
    dense = [entry(seed, 0.9, 0.9, 0.0) for seed in range(4)]
    return {"schema": 1, "table": "small", "cells": cells, "dense": dense}


def written(page: ModuleType, docs: Path, made: dict[str, Any]) -> tuple[str, dict[str, list[str]]]:
    """The page, and its table's rows by arm."""
    page.write_small(made, docs)
    text = (docs / "bidirectional.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return text, {row[0]: row[1:] for row in rows if row}


def test_numbers_are_those_of_a_hand_calculation(page: ModuleType, docs: Path) -> None:
    text, rows = written(page, docs, record(0.98))
    assert rows["arm"][-2:] == [
        "minus gradual_75 (95 % interval)",
        "minus one_way (95 % interval)",
    ]
    # paper minus gradual_75: 1, 2, 0 points; mean 1, sd 1, t(0.975, 2) = 4.3027, so 1 +- 2.48.
    # paper minus one_way: 5, 5, 5, which tells no spread. Its own mean is 76 and its sd 1.
    assert rows["paper"][1:] == [
        "3",
        "98.00 %",
        "76.00 ± 1.00",
        "+1.00 (-1.48 to +3.48)",
        "+5.00 (+5.00 to +5.00)",
    ]
    # one_way has a fourth seed, which counts in its mean and in no difference: (-4, -3, -5).
    assert rows["one_way"][1:] == ["4", "98.00 %", "75.75 ± 9.54", "-4.00 (-6.48 to -1.52)", ""]
    assert rows["frozen"][1:] == ["1", "98.00 %", "76.00", "+2.00", "+6.00"]
    assert rows["dense"][1:] == ["4", "0.00 %", "90.00 ± 0.00", "", ""]
    assert list(rows).index("**The search**") == list(rows).index("frozen") - 1
    # Five intervals in each column, three of no width in all; frozen has one seed and none.
    assert "\n10 intervals are shown here; 5 exclude zero." in text
    assert (
        "\nnet, N = 10,000 weights; first 20,000 images of the training part of cifar10; dense 12 "
        "epochs, every arm 8 more (80 steps); 1 to 4 seeds per arm; Abacus, 1 thread, fp32, "
        "torch 2.9, 2026-01-01 to 2026-01-04.\n"
    ) in text
    assert "\nold\n" not in text
    assert text.endswith("<!-- small: end -->\n\nafter\n")
    assert "Incomplete" not in text


def test_the_best_one_way_arm_is_chosen_by_validation_on_common_seeds(page: ModuleType) -> None:
    arms = page.by_target(record(0.98)["cells"])[98]
    assert page.best_one_way(arms) == "gradual_75"
    del arms["gradual_75"]
    assert page.best_one_way(arms) == "gradual_saliency"
    assert page.best_one_way({"paper": arms["paper"]}) is None


def test_the_groups_are_those_of_the_arms(page: ModuleType) -> None:
    order = [first for first in page.ARMS if first in page.GROUPS]
    assert order == list(page.GROUPS)
    assert order[0] == next(iter(page.ARMS))
    assert set(page.ONE_WAY) < set(page.ARMS)


def test_other_numbers_of_steps_are_told(page: ModuleType) -> None:
    made = record(0.98)
    for cell in made["cells"]:
        if cell["arm"] == "paper@98":
            cell["result"].update(steps=50, rehearsed=20)
    assert page.setting(made).endswith(
        " Other numbers of steps: paper@98 70, 20 of them in trials."
    )


def test_gaps_are_told(page: ModuleType, docs: Path) -> None:
    made = record(0.98)
    missing = [("paper@98", 3), ("paper@98", 4), ("shallow@98", 0)]
    text, rows = written(page, docs, {**made, "missing": missing})
    assert "**Incomplete**: seeds still missing, by arm: paper@98 2, shallow@98 1." in text
    assert rows["paper"][1] == "3"
    # Of the one-way arms nothing is there, or nothing at all.
    made["cells"] = [cell for cell in made["cells"] if cell["arm"] == "paper@98"]
    text, rows = written(page, docs, {**made, "missing": missing})
    assert rows["paper"][1:] == ["3", "98.00 %", "76.00 ± 1.00"]
    assert "is not known yet" in text
    text, rows = written(page, docs, {**made, "cells": [], "missing": missing})
    assert "No cell is finished yet." in text
    assert not rows


@dataclass(frozen=True)
class Named:
    name: str = ""


def test_a_table_with_gaps_is_written_when_asked(
    page: ModuleType,
    docs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = importlib.import_module("common")
    monkeypatch.setattr(common, "RECORDS", tmp_path)
    (tmp_path / "small.json").write_text(json.dumps(record(0.98)))
    arms = {f"{arm}@98": lambda seed: Named() for arm in TEST}
    seeds = {f"{arm}@98": range(len(values)) for arm, values in TEST.items()}
    table = common.Table("small", arms, {**seeds, "frozen@98": range(3)})
    before = (docs / "bidirectional.md").read_text(encoding="utf-8")

    def call(*options: str) -> str:
        monkeypatch.setattr("sys.argv", ["table.py", "--table", *options])
        common.main(table, lambda made: page.write_small(made, docs))
        return (docs / "bidirectional.md").read_text(encoding="utf-8")

    assert call() == before
    assert "2 cells are missing" in capsys.readouterr().out
    assert "seeds still missing, by arm: frozen@98 2." in call("--partial")


def test_figures_have_the_same_bytes_each_time(page: ModuleType, docs: Path) -> None:
    text, _ = written(page, docs, record(0.98, 0.95))
    names = re.findall(r"\]\((img/[\w.-]+)\)", text)
    parts = ("small-95", "small-98", "small")
    assert names == [f"img/headline-{part}.svg" for part in parts]
    first = [(docs / name).read_bytes() for name in names]
    written(page, docs, record(0.98, 0.95))
    assert [(docs / name).read_bytes() for name in names] == first
    for content in first:
        assert len(content) < 100_000
        assert b"var(" not in content
        root = ET.fromstring(content)
        ground = root.find(f"{SVG}rect")
        assert ground is not None
        assert (ground.get("width"), ground.get("fill")) == (root.get("width"), "#ffffff")


def words(svg: str) -> list[str]:
    return ["".join(text.itertext()).strip() for text in ET.fromstring(svg).iter(TEXT)]


def test_an_arm_that_collapsed_does_not_squeeze_the_scale(figures: ModuleType) -> None:
    def row(name: str, *values: float) -> Any:
        return figures.Difference(name, "Group", values, student_interval(values))

    calm = [row("worse", -1.0, -2.0, -1.5), row("better", 1.0, 1.2, 1.1)]
    plain = words(figures.forest(calm, "one", "Label"))
    svg = figures.forest([*calm, row("broken", -23.0, -24.0, -23.5)], "one", "Label")
    ticks = [text for text in plain if re.fullmatch(r"[+−]?\d+(\.\d)?", text)]
    assert len(ticks) > 3
    found = words(svg)
    assert [text for text in found if re.fullmatch(r"[+−]?\d+(\.\d)?", text)] == [*ticks, "−23.5"]
    assert "−23.50 (−24.74 to −22.26)" in found
    # The highest mean of a group comes first.
    heights = {text.text: float(text.get("y", "nan")) for text in ET.fromstring(svg).iter(TEXT)}
    assert heights["Group"] < heights["better"] < heights["worse"] < heights["broken"]
    # A wide interval ends at the scale's end, with its bounds in text.
    wide = words(figures.forest([row("wide", -8.0, 8.0)], "one", "Label"))
    assert "+0.00 (−101.65 to +101.65)" in wide
    assert "+10" in wide
    assert "+20" not in wide


def test_a_profile_shows_every_layer(figures: ModuleType) -> None:
    svg = figures.layer_profile([("stem", 1_728, 1_000), ("body & head", 2_359_296, 2_359)])
    assert svg == figures.layer_profile([("stem", 1_728, 1_000), ("body & head", 2_359_296, 2_359)])
    found = words(svg)
    assert {"stem", "1,000 (57.9 %)", "body & head", "2,359 (0.10 %)"} <= set(found)


def test_holm_agrees_with_a_hand_calculation() -> None:
    # 0.01 <= 0.05 / 4 and 0.015 <= 0.05 / 3 hold; 0.03 > 0.05 / 2 ends the list before 0.04.
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.015}) == {"b", "d"}
    assert holm({"a": 0.04, "b": 0.01}) == {"a", "b"}
    assert holm({}) == set()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-100, 100), min_size=2, max_size=6).filter(lambda v: len(set(v)) > 1))
def test_p_values_are_those_of_another_library(values: list[int]) -> None:
    p = student_p(values)
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)
    assert p is not None
    if abs(p - 0.05) > 1e-9:
        assert (p < 0.05) == (not student_interval(values).includes_zero)


def test_p_values_without_spread() -> None:
    assert student_p([3.0]) is None
    assert student_p([0.0, 0.0]) == 1
    assert student_p([2.0, 2.0]) is None
