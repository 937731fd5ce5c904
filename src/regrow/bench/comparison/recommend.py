"""Which strategy to use, as far as records tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrow.bench.comparison.evidence import Comparison, Row, compare
from regrow.bench.comparison.grid import Place
from regrow.bench.comparison.judgement import CLAIM, LOOK, best
from regrow.bench.comparison.strategies import DENSE
from regrow.bench.statistics import Interval, student_interval
from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError, unknown

OURS = Path(__file__).parent / "records"
"""Tables of the studies that docs/results.md tells of."""

_NEAR = 0.02  # two depths, in powers of ten of the density, that are as good as one


@dataclass(frozen=True)
class Recommendation:
    """A strategy, and how much is known of it.

    Attributes:
        strategy: the arm with the best mean test accuracy.
        also: further names of it in the study.
        accuracy: its accuracy in percent over seeds, at the sparsity that was measured.
        equals: arms that were not found to be worse, best first.
        behind: the others with their differences from the strategy in points.
        task, model, pattern, sparsity, epochs: what the evidence is of.
        cells: keys of the cells that it rests on.
        unknowns: what is not known, in sentences.
    """

    strategy: str
    also: tuple[str, ...]
    accuracy: Interval
    equals: tuple[str, ...]
    behind: dict[str, Interval]
    task: str
    model: str
    pattern: str
    sparsity: float
    epochs: int
    cells: tuple[str, ...]
    unknowns: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """For people."""
        seeds = f"{self.accuracy.n} seed{'s' * (self.accuracy.n != 1)}"
        name = f"{self.strategy} ({', '.join(self.also)})" if self.also else self.strategy
        lines = [
            f"{name}: {_interval(self.accuracy)} % test accuracy at "
            f"{100 * self.sparsity:g} % sparsity, {self.epochs} epochs ({self.model} on "
            f"{self.task}, {seeds})"
        ]
        if self.equals:
            lines.append(f"not found to be worse: {'; '.join(self.equals)}")
        if self.behind:
            told = [f"{arm} ({each.mean:+.2f} points)" for arm, each in self.behind.items()]
            lines.append(f"worse: {'; '.join(told)}".replace("-", "−"))
        lines += [f"not known: {each}" for each in self.unknowns]
        lines.append(f"rests on {len(self.cells)} cells")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            **{
                key: value for key, value in vars(self).items() if key not in ("accuracy", "behind")
            },
            "accuracy": vars(self.accuracy),
            "behind": {arm: vars(each) for arm, each in self.behind.items()},
        }


def recommend(
    tables: Sequence[Sequence[Row]],
    *,
    sparsity: float,
    epochs: int,
    task: str,
    model: str | None = None,
    pattern: str = "element",
) -> Recommendation:
    """The strategy with the best expected accuracy, and what the records do not tell.

    Args:
        tables: rows by study; arms of different studies are never compared.
        sparsity: the one wanted; the nearest that was measured counts, on a logarithmic scale of
            density.
        epochs: the most after the dense network; arms that took more are left out.
        task, model: what shall be pruned; where it was not measured, the nearest is: the task with
            another model, else a part of the task or one that it is a part of, as their names tell
            (cifar10_small of cifar10), else the model on another task, else whatever is there. Of
            several studies that are equally near, the one with the largest budget counts.
        pattern: "element", "unit" or another.

    Raises:
        RegrowError: there are no rows of the pattern, or none within the budget.
    """
    check_sparsity(sparsity)
    known = sorted({row.place.pattern for rows in tables for row in rows})
    if pattern not in known:
        raise unknown("pattern in the records", pattern, known)
    own = {key: spent for rows in tables for key, spent in _own_epochs(rows).items()}
    found = []
    for rows in tables:
        within = [
            row
            for row in rows
            if row.place.pattern == pattern
            and (row.place.arm == DENSE or own[row.place, row.cell] <= epochs)
        ]
        found += [each for each in compare(within) if each.arms]
    if not found:
        own_arms = [(at, n) for (at, _), n in own.items() if at.arm != DENSE]
        least = min((n for at, n in own_arms if at.pattern == pattern), default=0)
        raise RegrowError(
            f"no arm in the records took at most {epochs} epochs; the least is {least}."
        )

    def nearness(each: Comparison) -> tuple[bool, bool, bool, int]:
        rows = (row for arm in each.arms.values() for by in arm.values() for row in by.values())
        akin = each.task.startswith(task) or task.startswith(each.task)
        largest = max(own[row.place, row.cell] for row in rows)
        return each.task == task, akin, each.model == model, largest

    nearest = max(found, key=nearness)
    level = min(nearest.sparsities, key=lambda each: abs(_depth(each) - _depth(sparsity)))
    top = best(nearest, level)
    assert top is not None
    arms = (top.arm, *top.equals, *top.behind)
    cells = [row.cell for arm in arms for row in nearest.arms[arm][level].values()]
    spent = max(own[row.place, row.cell] for row in nearest.arms[top.arm][level].values())
    values = nearest.accuracy(top.arm, level)
    return Recommendation(
        top.arm,
        tuple(nearest.also.get(top.arm, ())),
        student_interval(values.values()),
        top.equals,
        dict(top.behind),
        nearest.task,
        nearest.model,
        pattern,
        level,
        spent,
        tuple(dict.fromkeys(cells)),
        tuple(_unknowns(nearest, level, spent, len(values), task, model, sparsity, epochs)),
    )


def _unknowns(
    nearest: Comparison,
    level: float,
    spent: int,
    seeds: int,
    task: str,
    model: str | None,
    sparsity: float,
    epochs: int,
) -> list[str]:
    told = []
    if nearest.task != task:
        told.append(f"anything of task {task}; the nearest that was measured is {nearest.task}")
    if model is not None and nearest.model != model:
        told.append(f"anything of {model} here; the nearest that was measured is {nearest.model}")
    if abs(_depth(level) - _depth(sparsity)) > _NEAR:
        told.append(f"{100 * sparsity:g} % itself; the nearest is {100 * level:g} %")
    if spent < 0.8 * epochs:
        told.append(f"what {epochs} epochs would bring; {spent} were measured")
    if seeds < LOOK:
        told.append(f"how much the seed matters: there {'is' if seeds == 1 else 'are'} {seeds}")
    elif seeds < CLAIM:
        told.append(f"much: {seeds} seeds are a look, not a claim")
    return told


def _own_epochs(rows: Sequence[Row]) -> dict[tuple[Place, str], int]:
    """Epochs of each cell after the dense network; of one built small, beyond a dense one's."""
    dense: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row.place.task, row.place.model)
        dense[key] = max(dense.get(key, 0), row.dense_epochs)
    own = {}
    for row in rows:
        at = row.place
        small = row.dense_epochs == 0 and at.arm != DENSE
        own[at, row.cell] = row.epochs - (dense[at.task, at.model] if small else 0)
    return own


def _depth(sparsity: float) -> float:
    return -math.log10(max(1 - sparsity, 1e-9))


def _interval(each: Interval) -> str:
    if each.low is None or each.high is None:
        return f"{each.mean:.2f}"
    return f"{each.mean:.2f} ({each.low:.2f} to {min(each.high, 100):.2f})"
