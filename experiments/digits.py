"""Does the published form win on digits? Five seeds, three sparsities, five arms.

    python experiments/digits.py                  # run what is missing, then write the table
    python experiments/digits.py --table          # only write the table from the records
    python experiments/digits.py --max-minutes 9  # a slice; call it again to go on

Every run is a `regrow run` directory under runs/digits/; finished ones are not repeated. The
records are gathered in experiments/records/digits.json, and docs/results.md holds the table.
The overshoot keeps a third of what the target keeps. Records of before the recipe was renamed have
it as "bidirectional"; the table takes the name from them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from tables import compared, differences, replace

from regrow.bench.config import configure
from regrow.bench.run import run

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "experiments" / "records" / "digits.json"
SEEDS = range(5)
SPARSITIES = (0.95, 0.97, 0.99)
CONTROLS = ("one_way", "gradual", "random_regrowth", "no_regrowth")
SECONDS_PER_RUN = 45  # Measured; only for the estimate that is printed.


def directory(sparsity: float, seed: int) -> Path:
    return ROOT / "runs" / "digits" / f"{sparsity}" / f"seed-{seed}"


def overshoot(sparsity: float) -> float:
    """The sparsity before regrowth: a third of the target's density is left."""
    return round(1 - (1 - sparsity) / 3, 6)


def measure(max_minutes: float) -> bool:
    """Run missing cells; True when all are there."""
    began = time.monotonic()
    cells = [(sparsity, seed) for sparsity in SPARSITIES for seed in SEEDS]
    missing = [cell for cell in cells if not (directory(*cell) / "record.json").exists()]
    print(f"{len(missing)} runs to do, about {len(missing) * SECONDS_PER_RUN / 60:.0f} minutes")
    for sparsity, seed in missing:
        if time.monotonic() - began > 60 * max_minutes:
            return False
        settings = [f"sparsity={sparsity}", f"overshoot={overshoot(sparsity)}"]
        config, task = configure(
            "bidirectional_paper", task="digits", seed=seed, controls=CONTROLS, settings=settings
        )
        out = directory(sparsity, seed)
        record = run(config, task, out, command="python experiments/digits.py")
        shown = {name: round(arm["test_accuracy"], 4) for name, arm in record["arms"].items()}
        print(sparsity, seed, shown, flush=True)
    return True


def gather() -> None:
    """Collect the records into one committed file."""
    paths = [directory(sparsity, seed) for sparsity in SPARSITIES for seed in SEEDS]
    found = [json.loads((path / "record.json").read_text()) for path in paths]
    RECORDS.parent.mkdir(exist_ok=True)
    RECORDS.write_text(json.dumps(found, separators=(",", ":")) + "\n")


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
    records = json.loads(RECORDS.read_text())
    groups = [
        [r for r in records if abs(r["arms"]["one_way"]["sparsity"] - sparsity) < 1e-3]
        for sparsity in SPARSITIES
    ]
    page = ROOT / "docs" / "results.md"
    recipe = records[0]["recipe"]
    replace(page, "digits", compared(groups, (recipe, *CONTROLS)))
    others = ("gradual", "random_regrowth", "no_regrowth")
    replace(page, "digits-differences", differences(groups, recipe, others))


if __name__ == "__main__":
    main()
