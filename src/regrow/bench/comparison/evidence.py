"""What the finished cells of a study say, arm by arm."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from regrow.bench.cells import Cell
from regrow.bench.comparison.grid import Place
from regrow.bench.comparison.strategies import DENSE, GRADUAL, SHUFFLED
from regrow.bench.store import Store

CONTROL = GRADUAL.name

COLUMNS = (
    *("task", "model", "pattern", "arm", "sparsity", "seed", "trial", "cell"),
    *("test_accuracy", "validation_accuracy", "sparsity_measured", "kept", "weights"),
    *("epochs", "dense_epochs", "steps", "seconds"),
)


@dataclass(frozen=True)
class Row:
    """One finished cell.

    Attributes:
        place: where it stands.
        cell: its key in the store.
        test, validation: accuracies, as fractions.
        sparsity: measured, of convolution and linear weights.
        kept, total: of those weights.
        epochs, dense_epochs: its own, and those of the dense network that it starts from.
        steps, seconds: its own.
    """

    place: Place
    cell: str
    test: float
    validation: float
    sparsity: float
    kept: int
    total: int
    epochs: int
    dense_epochs: int
    steps: int
    seconds: float

    def values(self) -> tuple[Any, ...]:
        """In the order of `COLUMNS`."""
        at = self.place
        return (
            *(at.task, at.model, at.pattern, at.arm, at.sparsity, at.seed, at.trial, self.cell),
            *(self.test, self.validation, self.sparsity, self.kept, self.total),
            *(self.epochs, self.dense_epochs, self.steps, self.seconds),
        )


@dataclass(frozen=True)
class Comparison:
    """Arms that answer one question: of a task, a network and a pattern.

    Attributes:
        task, model, pattern: of all arms.
        dense: the dense networks' test accuracy by seed.
        arms: rows by arm, sparsity and seed; of several trials the one chosen on validation data.
        trials: how many each arm had.
        also: further names of arms: a study's `gradual` by magnitude is the control itself, cell
            for cell, and counts once.
    """

    task: str
    model: str
    pattern: str
    dense: Mapping[int, float]
    arms: Mapping[str, Mapping[float, Mapping[int, Row]]]
    trials: int
    also: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def sparsities(self) -> list[float]:
        return sorted({level for levels in self.arms.values() for level in levels})

    @property
    def strategies(self) -> dict[str, Mapping[float, Mapping[int, Row]]]:
        """The arms without the twins whose scores are shuffled, of which only the alarm tells."""
        return {arm: by for arm, by in self.arms.items() if not arm.endswith(SHUFFLED)}

    def accuracy(self, arm: str, sparsity: float) -> dict[int, float]:
        """Test accuracy by seed, in percent."""
        rows = self.arms.get(arm, {}).get(sparsity, {})
        return {seed: 100 * row.test for seed, row in rows.items()}


def gather(cells: Mapping[Place, Cell], store: Store) -> list[Row]:
    """Rows of the cells that are finished, and of their dense networks, in order."""
    rows: dict[tuple[Place, str], Row] = {}
    for place, cell in cells.items():
        found = store.result(cell)
        if found is None:
            continue
        before = None if cell.from_scratch else store.result(cell.dense())
        spent = 0 if before is None else int(before["result"]["epochs"])
        row = _row(place, found, spent)
        rows[place, row.cell] = row
        if before is not None:
            at = Place(place.task, place.model, place.pattern, DENSE, 0.0, place.seed)
            dense = _row(at, before, 0)
            rows[at, dense.cell] = dense
    return list(rows.values())


def _row(place: Place, record: Mapping[str, Any], dense_epochs: int) -> Row:
    result = record["result"]
    return Row(
        place,
        str(record["key"]),
        float(result["test_accuracy"]),
        float(result["validation_accuracy"]),
        float(result["sparsity"]),
        int(result["kept"]),
        int(result["total"]),
        int(result["epochs"]),
        dense_epochs,
        int(result["steps"]),
        float(result["seconds"]),
    )


def compare(rows: Iterable[Row]) -> list[Comparison]:
    """Rows sorted into comparisons; of an arm's trials at a sparsity one is chosen.

    The learning rate with the best mean validation accuracy over the seeds counts, for all seeds;
    the test set takes no part in it.
    """
    questions: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        at = row.place
        questions.setdefault((at.task, at.model, at.pattern), []).append(row)
    return [_comparison(*key, found) for key, found in questions.items()]


def _comparison(task: str, model: str, pattern: str, rows: Sequence[Row]) -> Comparison:
    dense = {r.place.seed: 100 * r.test for r in rows if r.place.arm == DENSE}
    tried: dict[str, dict[float, dict[float, dict[int, Row]]]] = {}
    for row in rows:
        at = row.place
        if at.arm != DENSE:
            levels = tried.setdefault(at.arm, {}).setdefault(at.sparsity, {})
            levels.setdefault(at.trial, {})[at.seed] = row
    arms = {
        arm: {level: _best(trials) for level, trials in levels.items()}
        for arm, levels in tried.items()
    }
    most = max((len(t) for levels in tried.values() for t in levels.values()), default=1)
    also = _also(arms)
    twice = {name + twin for names in also.values() for name in names for twin in ("", SHUFFLED)}
    once = {arm: levels for arm, levels in arms.items() if arm not in twice}
    return Comparison(task, model, pattern, dense, once, most, also)


def _also(arms: Mapping[str, Mapping[float, Mapping[int, Row]]]) -> dict[str, list[str]]:
    """Further names of arms, by the first of those with the same cells; the control's precedes."""
    first: dict[frozenset[str], str] = {}
    also: dict[str, list[str]] = {}
    for arm in sorted(arms, key=lambda arm: arm != CONTROL):
        cells = frozenset(row.cell for rows in arms[arm].values() for row in rows.values())
        name = first.setdefault(cells, arm)
        if name != arm and not arm.endswith(SHUFFLED):
            also.setdefault(name, []).append(arm)
    return also


def _best(trials: Mapping[float, Mapping[int, Row]]) -> Mapping[int, Row]:
    # Only seeds that all trials have: a hard seed that one lacks would favour it.
    common = set.intersection(*(set(rows) for rows in trials.values()))
    if not common:
        return max(trials.values(), key=len)

    def validation(trial: float) -> float:
        return fmean(trials[trial][seed].validation for seed in common)

    best = max(sorted(trials), key=validation)
    return {seed: trials[best][seed] for seed in sorted(common)}


def csv_of(rows: Iterable[Row]) -> str:
    """All rows, with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.values() for row in rows)
    return out.getvalue()


def rows_of(text: str) -> list[Row]:
    """The inverse of `csv_of`."""
    found = []
    for line in csv.DictReader(io.StringIO(text)):
        place = Place(
            line["task"],
            line["model"],
            line["pattern"],
            line["arm"],
            float(line["sparsity"]),
            int(line["seed"]),
            float(line["trial"]),
        )
        found.append(
            Row(
                place,
                line["cell"],
                test=float(line["test_accuracy"]),
                validation=float(line["validation_accuracy"]),
                sparsity=float(line["sparsity_measured"]),
                kept=int(line["kept"]),
                total=int(line["weights"]),
                epochs=int(line["epochs"]),
                dense_epochs=int(line["dense_epochs"]),
                steps=int(line["steps"]),
                seconds=float(line["seconds"]),
            )
        )
    return found
