"""Tables and plots of docs/bidirectional.md, from the committed records."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arms import ARMS
from figures import Difference, curves, forest

from regrow.bench.statistics import holm, standard_deviation, student_interval, student_p
from regrow.core.files import write_atomic

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tables import replace

DOCS = Path(__file__).resolve().parents[2] / "docs"
# The first arm of each group, in the order of ARMS.
GROUPS = {
    "one_way": "Controls",
    "frozen": "The search",
    "paper": "The paper's form, and each of its choices",
}
# Of these the best on validation data is the one to beat; distillation would help any arm.
ONE_WAY = (
    "one_way",
    "iterative",
    "gradual_75",
    "gradual_magnitude",
    "gradual_saliency",
    "gradual_saliency_25",
    "gradual_saliency_50",
    "gradual_batch",
)
Values = Mapping[int, float]
Cells = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """An arm at one target.

    Attributes:
        test, validation: accuracies of the chosen weights by seed, in percent.
        kept: weights, the mean over seeds.
    """

    test: Values
    validation: Values
    kept: float


def write_small(record: Mapping[str, Any], docs: Path = DOCS) -> None:
    """A table's block in docs/bidirectional.md, and its figures under docs/img.

    Args:
        record: of the table, as `common.collect` makes it; arms and seeds that it lacks are in
            its "missing".
        docs: the folder of the page.
    """
    table, points, figures = record["table"], by_target(record["cells"]), {}
    blocks = [setting(record)] if points else ["No cell is finished yet."]
    dense = _percent(record["dense"], "test_accuracy")
    shown: list[Difference] = []
    for target, arms in points.items():
        total = record["dense"][0]["result"]["total"]
        best = best_one_way(arms)
        columns = {
            name: differences(arms, name)
            for name in dict.fromkeys((best, "one_way"))
            if name in arms
        }
        blocks += [f"**{target:g} %**", _rows(arms, columns, dense, total), _choice(arms)]
        shown += [each for column in columns.values() for each in column]
        if best and columns[best]:
            name = f"headline-{table}-{target:g}.svg"
            title = f"{table} at {target:g} %: test accuracy of every arm minus {best}'s"
            figures[name] = forest(columns[best], best, title)
            blocks.append(f"![{title}](img/{name})")
    if len(points) > 1:
        name, title = f"headline-{table}.svg", f"{table}: test accuracy of the main arms"
        total = record["dense"][0]["result"]["total"]
        figures[name] = curves(_main(points, total), student_interval(dense.values()), title)
        blocks.append(f"![{title}](img/{name})")
    blocks += [_multiplicity(shown)] if shown else []
    blocks += [_gaps(record["missing"])] if record.get("missing") else []
    (docs / "img").mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_atomic(docs / "img" / name, figure.encode())
    replace(docs / "bidirectional.md", table, "\n\n".join(blocks))


def by_target(cells: Cells) -> dict[float, dict[str, Measured]]:
    """Arms by target sparsity in percent, ascending, in the order of ARMS."""
    found: dict[float, dict[str, list[Mapping[str, Any]]]] = {}
    for cell in cells:
        name, _, target = cell["arm"].rpartition("@")
        found.setdefault(float(target), {}).setdefault(name, []).append(cell)
    return {
        target: {name: _measured(arms[name]) for name in ARMS if name in arms}
        for target, arms in sorted(found.items())
    }


def best_one_way(arms: Mapping[str, Measured]) -> str | None:
    """The one-way arm of the highest mean validation accuracy over the seeds that all have.

    None where there are no such seeds. Of equal ones the first in ONE_WAY.
    """
    standing = _standing(arms)
    return max(standing, key=lambda name: standing[name]) if standing else None


def differences(arms: Mapping[str, Measured], other: str) -> list[Difference]:
    """Every other arm's test accuracy minus one arm's, paired by seed, in points."""
    base, found = arms[other].test, []
    for name, arm in arms.items():
        values = [arm.test[seed] - base[seed] for seed in sorted(arm.test.keys() & base.keys())]
        if values and name != other:
            found.append(Difference(name, _group(name), tuple(values), student_interval(values)))
    return found


def setting(record: Mapping[str, Any]) -> str:
    """Network, data, steps, seeds, hardware and dates, in a few sentences."""
    cells, dense = record["cells"], record["dense"]
    facts, result = dense[0]["facts"], dense[0]["result"]
    task, _, images = facts["task"].partition("-")
    data = f"first {int(images):,} images" if images else "all images"
    counts = sorted(Counter(cell["arm"] for cell in cells).values())
    seeds = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    spent = Counter((cell["result"]["epochs"], _steps(cell)) for cell in cells)
    (epochs, steps), _ = spent.most_common(1)[0]
    text = (
        f"{facts['model']}, N = {result['total']:,} weights; {data} of the training part of "
        f"{task}; dense {result['epochs']} epochs, every arm {epochs} more ({steps:,} steps); "
        f"{seeds} seed{'' if seeds == '1' else 's'} per arm; {_where([*cells, *dense])}."
    )
    others = {cell["arm"]: _spent(cell) for cell in cells if _steps(cell) != steps}
    if others:
        listed = "; ".join(f"{arm} {other}" for arm, other in others.items())
        text += f" Other numbers of steps: {listed}."
    return text


def _rows(
    arms: Mapping[str, Measured],
    columns: Mapping[str, Sequence[Difference]],
    dense: Values,
    total: int,
) -> str:
    """The table of one target: arms by group, compared with those that name a column."""
    texts = [{each.name: each for each in column} for column in columns.values()]
    held = [_held(column) for column in columns.values()]
    head = ["arm", "what it is", "seeds", "sparsity", "test accuracy %, mean ± sd"]
    head += [f"minus {name} (95 % interval)" for name in columns]
    start = ["dense", "what all arms start from", f"{len(dense)}", "0.00 %", _spread(dense)]
    lines = [_line(head), "|---" * len(head) + "|", _line(start, len(head))]
    group = ""
    for name, arm in arms.items():
        if group != (group := _group(name)):
            lines.append(_line([f"**{group}**"], len(head)))
        sparsity = f"{100 * (1 - arm.kept / total):.2f} %"
        row = [name, ARMS[name].note, f"{len(arm.test)}", sparsity, _spread(arm.test)]
        for column, marked in zip(texts, held, strict=True):
            row.append(_told(column[name], name in marked) if name in column else "")
        lines.append(_line(row, len(head)))
    return "\n".join(lines)


def _held(column: Sequence[Difference]) -> set[str]:
    """Arms whose difference holds after Holm's correction for the others of the column."""
    found = {each.name: student_p(each.values) for each in column}
    return holm({name: p for name, p in found.items() if p is not None})


def _told(difference: Difference, held: bool) -> str:
    interval = difference.interval
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.2f}"
    bounds = f"({interval.low:+.2f} to {interval.high:+.2f})"
    return f"{interval.mean:+.2f} {bounds}" + (" †" if held else "")


def _multiplicity(shown: Sequence[Difference]) -> str:
    """How many intervals a table shows, and how many would exclude zero by chance."""
    bounded = [each for each in shown if each.interval.low is not None]
    excluding = sum(each.interval.includes_zero is False for each in bounded)
    return (
        f"{len(bounded)} intervals are shown here; {excluding} exclude zero. If no arm "
        f"differed from another, about one in twenty would exclude it by chance, here about "
        f"{len(bounded) / 20:.0f}. Differences with a † hold after Holm's correction for all the "
        "others of their column."
    )


def _choice(arms: Mapping[str, Measured]) -> str:
    """How the best one-way arm was chosen."""
    standing = _standing(arms)
    if not standing:
        return "No seed is common to the one-way arms, so the best of them is not known yet."
    ranked = sorted(standing, key=lambda name: -standing[name])
    listed = ", ".join(f"{name} {standing[name]:.2f}" for name in ranked)
    seeds = ", ".join(map(str, _common(arms)))
    return (
        f"The best one-way arm is chosen by validation accuracy, its mean over the seeds that all "
        f"of them have ({seeds}), in %: {listed}."
    )


def _standing(arms: Mapping[str, Measured]) -> dict[str, float]:
    """Mean validation accuracy of the one-way arms over their common seeds."""
    common = _common(arms)
    names = [name for name in ONE_WAY if name in arms] if common else []
    return {name: _mean(arms[name].validation[seed] for seed in common) for name in names}


def _common(arms: Mapping[str, Measured]) -> list[int]:
    seeds = [set(arms[name].validation) for name in ONE_WAY if name in arms]
    return sorted(set.intersection(*seeds)) if seeds else []


def _main(
    points: Mapping[float, Mapping[str, Measured]], total: int
) -> dict[str, list[tuple[float, Any]]]:
    """Density and interval of the test accuracy at each target, by main arm."""
    found: dict[str, list[tuple[float, Any]]] = {}
    for name in (name for name, arm in ARMS.items() if arm.main):
        for arms in points.values():
            if name in arms:
                interval = student_interval(arms[name].test.values())
                found.setdefault(name, []).append((arms[name].kept / total, interval))
    return found


def _gaps(missing: Iterable[tuple[str, int]]) -> str:
    """Which arms lack how many seeds."""
    lacking = Counter(arm for arm, _ in missing)
    listed = ", ".join(f"{arm} {count}" for arm, count in lacking.items())
    return f"**Incomplete**: seeds still missing, by arm: {listed}."


def _where(entries: Cells) -> str:
    """Hardware, software and dates of all entries."""

    def every(key: str) -> str:
        return " and ".join(sorted({str(entry["environment"][key]) for entry in entries}))

    dates = sorted({entry["environment"]["date"] for entry in entries})
    threads = every("threads")
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"{every('processor')}, {threads} thread{'' if threads == '1' else 's'}, "
        f"{every('precision')}, torch {every('torch')}, {when}"
    )


def _measured(cells: Cells) -> Measured:
    kept = _mean(cell["result"]["kept"] for cell in cells)
    return Measured(_percent(cells, "test_accuracy"), _percent(cells, "validation_accuracy"), kept)


def _percent(entries: Cells, what: str) -> Values:
    return {entry["facts"]["seed"]: 100 * entry["result"][what] for entry in entries}


def _steps(cell: Mapping[str, Any]) -> int:
    return int(cell["result"]["steps"] + cell["result"]["rehearsed"])


def _spent(cell: Mapping[str, Any]) -> str:
    """Steps, those of rehearsals included."""
    rehearsed = cell["result"]["rehearsed"]
    return f"{_steps(cell):,}" + (f", {rehearsed:,} of them in trials" if rehearsed else "")


def _group(name: str) -> str:
    order = list(ARMS)
    starts = [first for first in GROUPS if order.index(first) <= order.index(name)]
    return GROUPS[starts[-1]]


def _spread(values: Values) -> str:
    deviation = standard_deviation(values.values())
    return f"{_mean(values.values()):.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def _mean(values: Iterable[float]) -> float:
    sample = list(values)
    return math.fsum(sample) / len(sample)


def _line(cells: Sequence[str], width: int = 0) -> str:
    """A table's row, filled up with empty cells."""
    return "| " + " | ".join([*cells, *[""] * (width - len(cells))]) + " |"
