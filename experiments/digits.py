"""Does cutting too far and growing back win on digits? Five seeds, three sparsities, five arms.

    python experiments/digits.py                  # run what is missing, then write the table
    python experiments/digits.py --table          # only write the table from the records
    python experiments/digits.py --max-minutes 9  # a slice; call it again to go on

Every run is a `regrow run` directory under runs/digits/; finished ones are not repeated. The
records are gathered in experiments/records/digits.json, and docs/results.md holds the table
between two marks. The overshoot keeps a third of what the target keeps.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from regrow.bench.config import configure
from regrow.bench.run import run
from regrow.bench.statistics import paired_difference, standard_deviation

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "experiments" / "records" / "digits.json"
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- digits: begin -->", "<!-- digits: end -->"
SEEDS = range(5)
SPARSITIES = (0.95, 0.97, 0.99)
CONTROLS = ("one_way", "gradual", "random_regrowth", "no_regrowth")
SECONDS_PER_RUN = 45  # Measured; only for the estimate that is printed.


def overshoot(sparsity: float) -> float:
    """The sparsity before regrowth: a third of the target's density is left."""
    return round(1 - (1 - sparsity) / 3, 6)


def cells() -> list[tuple[str, float, int]]:
    """Name, sparsity and seed of every run."""
    return [(f"{s}/seed-{seed}", s, seed) for s in SPARSITIES for seed in SEEDS]


def measure(max_minutes: float) -> bool:
    """Run missing cells; True when all are there."""
    began = time.monotonic()
    missing = [(o, s, d) for o, s, d in cells() if not _record(o).exists()]
    print(f"{len(missing)} runs to do, about {len(missing) * SECONDS_PER_RUN / 60:.0f} minutes")
    for out, sparsity, seed in missing:
        if time.monotonic() - began > 60 * max_minutes:
            return False
        settings = [f"sparsity={sparsity}", f"overshoot={overshoot(sparsity)}"]
        config, task = configure(
            "bidirectional", task="digits", seed=seed, controls=CONTROLS, settings=settings
        )
        directory = _record(out).parent
        record = run(config, task, directory, command="python experiments/digits.py")
        print(out, {n: round(a["test_accuracy"], 4) for n, a in record["arms"].items()}, flush=True)
    return True


def _record(cell: str) -> Path:
    return ROOT / "runs" / "digits" / cell / "record.json"


def gather() -> None:
    """Collect the records into one committed file."""
    found = [json.loads(_record(out).read_text()) for out, _, _ in cells()]
    RECORDS.write_text(json.dumps(found, indent=None, separators=(",", ":")) + "\n")


def table(records: list[dict[str, Any]]) -> str:
    """The table of docs/results.md, every figure computed from the records."""
    first = records[0]
    here = first["environment"]
    lines = [
        f"{first['model']}, {first['arms']['dense']['total']:,} weights; "
        f"{len({r['seed'] for r in records})} seeds; dense {_epochs(first, 'dense')} epochs, every "
        f"other arm {_epochs(first, 'one_way')} more; {here['processor']}, {here['threads']} "
        f"thread, torch {here['torch']}, {here['date']}.",
        "",
        "| target | arm | sparsity | test accuracy %, mean ± sd | minus one_way (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    dense = [100 * r["arms"]["dense"]["test_accuracy"] for r in records[: len(SEEDS)]]
    lines.append(f"| - | dense | 0 % | {_mean(dense)} | |")
    for sparsity in SPARSITIES:
        group = [r for r in records if abs(r["arms"]["one_way"]["sparsity"] - sparsity) < 1e-3]
        control = _accuracies(group, "one_way")
        for arm in ("bidirectional", *CONTROLS):
            values = _accuracies(group, arm)
            reached = 100 * group[0]["arms"][arm]["sparsity"]
            difference = ""
            if arm != "one_way":
                d = paired_difference(values, control)
                difference = f"{d.mean:+.2f} ({d.low:+.2f} to {d.high:+.2f})"
            lines.append(
                f"| {100 * sparsity:g} % | {arm} | {reached:.2f} % | "
                f"{_mean(list(values.values()))} | {difference} |"
            )
    return "\n".join(lines)


def _accuracies(records: list[dict[str, Any]], arm: str) -> dict[int, float]:
    return {r["seed"]: 100 * r["arms"][arm]["test_accuracy"] for r in records}


def _epochs(record: dict[str, Any], arm: str) -> int:
    spent = record["arms"][arm]["epochs"]
    return spent.get("fine_tune", spent["dense"])


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f} ± {standard_deviation(values) or 0:.2f}"


def write_table() -> None:
    """Replace the table between the marks of docs/results.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    block = table(json.loads(RECORDS.read_text()))
    PAGE.write_text(f"{before}{BEGIN}\n{block}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    arguments = parser.parse_args()
    if not arguments.table:
        if not measure(arguments.max_minutes):
            print("stopped at the limit; call again to go on")
            return
        gather()
    write_table()


if __name__ == "__main__":
    main()
