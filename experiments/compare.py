"""Which strategy at which sparsity: the tables in docs/results.md, from the records of studies.

    regrow compare examples/digits.toml --out studies/digits --workers 2
    cp studies/digits/records.csv experiments/records/compare/digits.csv
    python experiments/compare.py

Writes, for each table of records in experiments/records/compare/, the arms' accuracies and the
verdict into docs/results.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tables

from regrow.bench.comparison.evidence import Comparison, compare, rows_of
from regrow.bench.comparison.judgement import CONTROL, alarms, standings, verdict
from regrow.bench.comparison.strategies import SHUFFLED
from regrow.bench.statistics import student_interval

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "experiments" / "records" / "compare"


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    for path in sorted(RECORDS.glob("*.csv")):
        told = "\n\n".join(section(each) for each in compare(rows_of(path.read_text())))
        tables.replace(ROOT / "docs" / "results.md", f"compare-{path.stem}", told)


def section(comparison: Comparison) -> str:
    """A comparison's table and verdict."""
    levels = comparison.sparsities
    head = " | ".join(f"{100 * level:g} %" for level in levels)
    lines = [f"| arm | {head} |", "|---" * (1 + len(levels)) + "|"]
    certain = {level: standings(comparison, level) for level in levels}
    for arm in comparison.arms:
        if arm.endswith(SHUFFLED):
            continue
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
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
