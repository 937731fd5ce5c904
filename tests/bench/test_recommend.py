"""Recommendations: as sure as the records, and no surer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regrow.bench.comparison.evidence import Row, csv_of
from regrow.bench.comparison.grid import Place
from regrow.bench.comparison.recommend import recommend
from regrow.cli.recommend import _epochs
from regrow.cli.tables import read_table
from regrow.core.errors import RegrowError


def rows(
    truth: dict[str, float],
    levels: tuple[float, ...] = (0.8, 0.95),
    seeds: int = 5,
    task: str = "digits",
    model: str = "cnn",
    epochs: int = 20,
) -> list[Row]:
    rng = np.random.default_rng(0)
    found = []
    for seed in range(seeds):
        place = Place(task, model, "element", "dense", 0.0, seed)
        found.append(Row(place, f"d{seed}", 0.99, 0.99, 0.0, 9, 9, 10, 0, 50, 1.0))
        for level in levels:
            common = rng.normal(0, 1)
            for arm, mean in truth.items():
                test = (mean + common - 5 * (level > 0.9) + rng.normal(0, 0.1)) / 100
                place = Place(task, model, "element", arm, level, seed)
                small = arm == "small dense"
                spent = (epochs + 10, 0) if small else (epochs, 10)
                key = f"{arm}{level}{seed}{epochs}"
                found.append(Row(place, key, test, test, level, 1, 9, *spent, 50, 1.0))
    return found


TRUTH = {"one_shot": 90.0, "geometric": 92.0, "gradual": 92.0, "small dense": 85.0, "random": 50.0}


def test_the_best_is_named_with_those_that_are_as_good() -> None:
    found = recommend([rows(TRUTH)], sparsity=0.8, epochs=20, task="digits", model="cnn")
    assert {found.strategy, *found.equals} == {"geometric", "gradual"}
    assert list(found.behind) == ["one_shot", "small dense", "random"]
    assert found.behind["one_shot"].mean == pytest.approx(-2, abs=0.3)
    assert (found.sparsity, found.epochs, found.accuracy.n) == (0.8, 20, 5)
    assert found.unknowns == ()
    assert len(found.cells) == 25
    assert "rests on 25 cells" in found.text()


def test_further_names_of_the_best_are_told() -> None:
    table = rows({"one_shot": 90.0, "geometric": 92.0})
    more = [replace(row, place=replace(row.place, arm="mine"))
            for row in table if row.place.arm == "geometric"]  # fmt: skip
    found = recommend([[*table, *more]], sparsity=0.95, epochs=20, task="digits", model="cnn")
    assert (found.strategy, found.also) == ("geometric", ("mine",))
    assert found.text().startswith("geometric (mine): ")
    assert "mine" not in (*found.equals, *found.behind)
    assert found.to_dict()["also"] == ("mine",)


def test_twins_with_shuffled_scores_are_no_strategy() -> None:
    found = recommend(
        [rows({"one_shot": 90.0, "one_shot, shuffled": 99.0})],
        sparsity=0.8,
        epochs=20,
        task="digits",
    )
    assert found.strategy == "one_shot"


def test_what_is_not_known_is_said() -> None:
    known = [rows(TRUTH, seeds=3), rows(TRUTH, task="cifar10", model="resnet20")]
    found = recommend(known, sparsity=0.9, epochs=80, task="speech", model="resnet20")
    assert (found.task, found.model) == ("cifar10", "resnet20")
    told = " ".join(found.unknowns)
    assert "anything of task speech; the nearest that was measured is cifar10" in told
    assert "90 % itself; the nearest is 95 %" in told or "the nearest is 80 %" in told
    assert "what 80 epochs would bring; 20 were measured" in told
    found = recommend(known, sparsity=0.8, epochs=20, task="digits", model="vgg16")
    assert (found.task, found.model) == ("digits", "cnn")
    assert "anything of vgg16 here" in found.unknowns[0]
    assert "3 seeds are a look" in found.unknowns[1]
    known += [rows(TRUTH, task="digits_small", epochs=10), rows(TRUTH, task="cifar10_small")]
    for task, model, nearest in (
        ("cifar10", "cnn", "cifar10"),
        ("cifar10_small", "resnet20", "cifar10_small"),
        ("cifar", "cnn", "cifar10_small"),
        ("digits_small_too", "resnet20", "digits"),
    ):
        found = recommend(known, sparsity=0.8, epochs=20, task=task, model=model)
        assert found.task == nearest
    single = recommend([rows(TRUTH, seeds=1)], sparsity=0.8, epochs=20, task="digits")
    assert len(single.equals) == 4  # one seed tells nothing apart
    assert "there is 1" in single.unknowns[0]


def test_arms_beyond_the_budget_are_left_out() -> None:
    known = [rows({"slow": 99.0, "random": 50.0}, epochs=40), rows({"quick": 90.0}, epochs=10)]
    assert recommend(known, sparsity=0.8, epochs=40, task="digits").strategy == "slow"
    assert recommend(known, sparsity=0.8, epochs=20, task="digits").strategy == "quick"
    with pytest.raises(RegrowError, match="at most 5 epochs; the least is 10"):
        recommend(known, sparsity=0.8, epochs=5, task="digits")
    with pytest.raises(RegrowError, match="unknown pattern in the records 'unit'"):
        recommend(known, sparsity=0.8, epochs=5, task="digits", pattern="unit")
    with pytest.raises(RegrowError, match=r"in \[0, 1\)"):
        recommend(known, sparsity=8, epochs=5, task="digits")


def test_arms_of_different_studies_are_not_compared() -> None:
    # The short study's random pruning is better than anything in the long one.
    known = [rows({"random": 95.0}, epochs=10), rows({"one_shot": 90.0, "random": 50.0}, epochs=20)]
    found = recommend(known, sparsity=0.8, epochs=20, task="digits")
    assert (found.strategy, found.epochs, *found.behind) == ("one_shot", 20, "random")
    assert recommend(known, sparsity=0.8, epochs=15, task="digits").strategy == "random"


def test_tables_and_budgets_from_the_command_line(tmp_path: Path) -> None:
    known = rows(TRUTH, seeds=2)
    (tmp_path / "records.csv").write_text(csv_of(known))
    assert read_table(tmp_path) == read_table(tmp_path / "records.csv") == known
    for text in ("a,b\n1,2\n", "a" * 200_000 + "\n1\n"):
        (tmp_path / "records.csv").write_text(text)
        with pytest.raises(RegrowError, match="is no table of a study's records"):
            read_table(tmp_path)
    with pytest.raises(RegrowError, match="cannot be read"):
        read_table(tmp_path / "none")
    assert (_epochs("40"), _epochs("40epochs"), _epochs("1 epoch")) == (40, 40, 1)
    for words in ("0", "many", "4.5"):
        with pytest.raises(RegrowError, match="no count of epochs"):
            _epochs(words)
