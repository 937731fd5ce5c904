"""Which strategy at which sparsity: the tables in docs/results.md, from the records of studies.

    regrow compare experiments/studies/digits.toml --out runs/compare/digits --workers 2
    cp runs/compare/digits/records.csv src/regrow/bench/comparison/records/digits.csv
    python experiments/compare.py

Writes, for each table of records that regrow ships (those that `regrow recommend` rests on), the
arms' accuracies, their differences from one cut, and the verdict into docs/results.md, and draws
the arms of the question itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tables
from headline.figures import standalone

from regrow.bench.comparison import charts
from regrow.bench.comparison.evidence import CONTROL, Comparison, compare, rows_of
from regrow.bench.comparison.judgement import alarms, standings, verdict
from regrow.bench.comparison.page import floor_of
from regrow.bench.comparison.recommend import OURS
from regrow.bench.statistics import Interval, paired_difference, student_interval
from regrow.core.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WIDTH = 860
# One cut or several, and what is beside them; each has one colour in all figures.
DRAWN = (
    *(CONTROL, "one_shot", "geometric", "hybrid", "geometric_rewinding"),
    *("bidirectional", "bidirectional_units", "small dense"),
)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    for path in sorted(OURS.glob("*.csv")):
        found = compare(rows_of(path.read_text()))
        told = "\n\n".join(f"{drawing(each, path.stem)}{section(each)}" for each in found)
        tables.replace(DOCS / "results.md", f"compare-{path.stem}", told)


def drawing(comparison: Comparison, study: str) -> str:
    """The figure of the arms in question, written beside the page; empty where they are not."""
    arms = [arm for arm in DRAWN if arm in comparison.arms]
    if "geometric" not in arms:
        return ""
    of = "channels" if comparison.pattern == "unit" else "weights"
    title = f"{comparison.model} on {comparison.task}, {of}: test accuracy over sparsity"
    lines = [
        charts.Line(
            1 + DRAWN.index(arm),
            {
                level: student_interval(comparison.accuracy(arm, level).values())
                for level in sorted(comparison.arms[arm])
            },
        )
        for arm in arms
    ]
    dense = student_interval(comparison.dense.values())
    floor = floor_of(comparison, dense)
    drawn = charts.over_sparsity(lines, dense, floor, WIDTH, title, arms)
    of_task = "" if comparison.task == study else f"-{comparison.task}"
    name = f"img/compare-{study}{of_task}-{of}.svg"
    write_atomic(DOCS / name, standalone(drawn, WIDTH, charts.HEIGHT).encode())
    return f"![{title}]({name})\n\n"


def section(comparison: Comparison) -> str:
    """A comparison's table and verdict."""
    levels = comparison.sparsities
    head = " | ".join(f"{100 * level:g} %" for level in levels)
    lines = [f"| arm | {head} |", "|---" * (1 + len(levels)) + "|"]
    certain = {level: standings(comparison, level) for level in levels}
    for arm in comparison.strategies:
        cells = []
        for level in levels:
            values = comparison.accuracy(arm, level).values()
            each = student_interval(values) if values else None
            star = arm in certain[level] and certain[level][arm].certain
            cells.append("" if each is None else f"{each.mean:.2f}{'*' if star else ''}")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    dense = student_interval(comparison.dense.values())
    seeds = {len(rows) for each in comparison.arms.values() for rows in each.values()}
    lines += [
        "",
        f"{comparison.model} on {comparison.task}, {comparison.pattern}, {max(seeds)} seeds; the "
        f"dense network reaches {dense.mean:.2f} %. A star: certainly another accuracy than "
        f"{CONTROL}'s, among all arms of that sparsity together (Holm, 5 %).",
        "",
        *(f"- {line}" for line in (*alarms(comparison), *verdict(comparison))),
        *beside_one_cut(comparison),
    ]
    return "\n".join(lines)


def beside_one_cut(comparison: Comparison) -> list[str]:
    """Differences from one_shot, which the paper is about, with intervals."""
    levels = comparison.sparsities
    rows = []
    for arm in comparison.arms:
        if arm.partition("_")[0] not in ("constant", "geometric", "hybrid") or ", " in arm:
            continue
        cells = []
        for level in levels:
            a, b = (comparison.accuracy(name, level) for name in (arm, "one_shot"))
            each = paired_difference(a, b) if a.keys() & b.keys() else None
            cells.append("" if each is None else signed(each))
        rows.append(f"| {arm} | {' | '.join(cells)} |")
    if not rows:
        return []
    head = " | ".join(f"{100 * level:g} %" for level in levels)
    top = [f"| beside one_shot | {head} |", "|---" * (1 + len(levels)) + "|"]
    return ["", "Differences from one_shot in points, paired by seed, with 95 % intervals:", "",
            *top, *rows]  # fmt: skip


def signed(each: Interval) -> str:
    """A difference with its interval."""
    bounds = "" if each.low is None else f" ({each.low:+.2f} to {each.high:+.2f})"
    return f"{each.mean:+.2f}{bounds}".replace("-", "−")


if __name__ == "__main__":
    main()
