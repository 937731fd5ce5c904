"""Do the two bidirectional forms win on digits? Five seeds, three sparsities, five arms each.

    python experiments/digits.py                  # run what is missing, then write the table
    python experiments/digits.py --table          # only write the table from the records
    python experiments/digits.py --max-minutes 9  # a slice; call it again to go on

Every run is a `regrow run` directory under runs/digits/; finished ones are not repeated. The
records are gathered in experiments/records/digits.json, and docs/results.md holds the table.
The published form's overshoot keeps a third of what the target keeps. The controls of each form
cut by its own criterion (LAMP there, saliency in the other).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from tables import compared, differences, replace

from regrow.bench.config import configure
from regrow.bench.run import run

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "experiments" / "records" / "digits.json"
SEEDS = range(5)
RECIPES = ("bidirectional_paper", "bidirectional")
SPARSITIES = (0.95, 0.97, 0.99)
CELLS = [
    (recipe, sparsity, seed) for recipe in RECIPES for sparsity in SPARSITIES for seed in SEEDS
]
CONTROLS = ("one_way", "gradual", "random_regrowth", "no_regrowth")
SECONDS_PER_RUN = 60  # Measured; only for the estimate that is printed.


def directory(recipe: str, sparsity: float, seed: int) -> Path:
    return ROOT / "runs" / "digits" / recipe / f"{sparsity}" / f"seed-{seed}"


def overshoot(sparsity: float) -> float:
    """The sparsity before regrowth: a third of the target's density is left."""
    return round(1 - (1 - sparsity) / 3, 6)


def measure(max_minutes: float) -> bool:
    """Run missing cells; True when all are there."""
    began = time.monotonic()
    missing = [cell for cell in CELLS if not (directory(*cell) / "record.json").exists()]
    print(f"{len(missing)} runs to do, about {len(missing) * SECONDS_PER_RUN / 60:.0f} minutes")
    for recipe, sparsity, seed in missing:
        if time.monotonic() - began > 60 * max_minutes:
            return False
        settings = [f"sparsity={sparsity}"]
        if recipe == "bidirectional_paper":
            settings.append(f"overshoot={overshoot(sparsity)}")
        config, task = configure(
            recipe, task="digits", seed=seed, controls=CONTROLS, settings=settings
        )
        out = directory(recipe, sparsity, seed)
        record = run(config, task, out, command="python experiments/digits.py")
        shown = {name: round(arm["test_accuracy"], 4) for name, arm in record["arms"].items()}
        print(recipe, sparsity, seed, shown, flush=True)
    return True


def gather() -> None:
    """Collect the records into one committed file."""
    found = [json.loads((directory(*cell) / "record.json").read_text()) for cell in CELLS]
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
    page = ROOT / "docs" / "results.md"
    others = ("gradual", "random_regrowth", "no_regrowth")
    for recipe in RECIPES:
        groups = [
            [r for r in records if r["recipe"] == recipe and _target(r) == sparsity]
            for sparsity in SPARSITIES
        ]
        mark = "digits" if recipe == "bidirectional_paper" else "digits-bidirectional"
        replace(page, mark, compared(groups, (recipe, *CONTROLS)))
        replace(page, f"{mark}-differences", differences(groups, recipe, others))


def _target(record: dict[str, Any]) -> float:
    return float(record["parameters"]["sparsity"])


if __name__ == "__main__":
    main()
