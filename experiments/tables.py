"""Tables between two marks of a page, computed from records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regrow.bench.statistics import paired_difference, standard_deviation

Record = dict[str, Any]


def setting(records: Sequence[Record]) -> str:
    """One line: network, seeds, epochs, hardware, date."""
    first = records[0]
    here, arms = first["environment"], first["arms"]
    seeds = len({record["seed"] for record in records})
    return (
        f"{first['model']}, {arms['dense']['total']:,} weights; {seeds} "
        f"seed{'s' if seeds > 1 else ''}; dense {arms['dense']['epochs']['dense']} epochs, every "
        f"other arm {arms['one_way']['epochs']['fine_tune']} more; {here['processor']}, "
        f"{here['threads']} thread{'s' if here['threads'] > 1 else ''}, {here['precision']}, torch "
        f"{here['torch']}, {here['date']}."
    )


def compared(groups: Sequence[Sequence[Record]], arms: Sequence[str]) -> str:
    """Arms by target: accuracy, and the paired difference to the one-way control.

    Args:
        groups: the records of each target, one per seed.
        arms: their order; "one_way" is the control.
    """
    lines = [
        setting([record for group in groups for record in group]),
        "",
        "| arm | sparsity | kept | test accuracy %, mean ± sd | minus one_way (95 % interval) |",
        "|---|---|---|---|---|",
        _row(groups[0], "dense", compare=False),
    ]
    for group in groups:
        lines += [_row(group, arm, compare=arm != "one_way") for arm in arms]
    return "\n".join(lines)


def differences(groups: Sequence[Sequence[Record]], main: str, others: Sequence[str]) -> str:
    """One arm minus each of the others, paired by seed, by target of the one-way control."""
    lines = [
        f"| {main} minus, in points (95 % interval) | " + " | ".join(others) + " |",
        "|---" * (len(others) + 1) + "|",
    ]
    for group in groups:
        target = group[0]["arms"]["one_way"]["sparsity"]
        cells = [_difference(group, main, other) for other in others]
        lines.append(f"| {100 * target:.0f} % | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def replace(page: Path, mark: str, block: str) -> None:
    """Put a block between `<!-- mark: begin -->` and `<!-- mark: end -->`."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{page} lacks the marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def _row(group: Sequence[Record], arm: str, *, compare: bool) -> str:
    values = _accuracies(group, arm)
    mean = sum(values.values()) / len(values)
    spread = standard_deviation(list(values.values()))
    shown = f"{mean:.2f}" + ("" if spread is None else f" ± {spread:.2f}")
    difference = _difference(group, arm, "one_way") if compare else ""
    first = group[0]["arms"][arm]
    return (
        f"| {arm} | {100 * first['sparsity']:.2f} % | {first['kept']:,} | {shown} | {difference} |"
    )


def _difference(group: Sequence[Record], arm: str, other: str) -> str:
    found = paired_difference(_accuracies(group, arm), _accuracies(group, other))
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _accuracies(records: Sequence[Record], arm: str) -> dict[int, float]:
    return {record["seed"]: 100 * record["arms"][arm]["test_accuracy"] for record in records}
