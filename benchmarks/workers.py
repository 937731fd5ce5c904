"""How much faster a study is by several workers: the wall time of `regrow compare` by their number.

    python benchmarks/workers.py [--workers 1 2] [--rounds 3]

Each number of workers runs the same study of the digits in a directory of its own, in turns, start
and report included. Wants a machine without other work, and a core for each worker. Writes
benchmarks/records/workers.json and a table in docs/results.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shrink import publish

from regrow.bench.environment import processor

STUDY = """
[[grid]]
task = "digits"
strategies = ["one_shot", "geometric", "hybrid", "bidirectional"]
sparsities = [0.8, 0.95]
seeds = 3
epochs = 15
training = { dense_epochs = 15 }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only the table, from the record")
    asked = parser.parse_args()
    if asked.table:
        publish("workers", table)
        return
    seconds: dict[int, list[float]] = {number: [] for number in asked.workers}
    for _ in range(asked.rounds):
        for number, found in seconds.items():
            found.append(wall(number))
            print(f"{number} workers: {found[-1]:.1f} s", flush=True)
    record: dict[str, object] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": {str(number): found for number, found in seconds.items()},
    }
    publish("workers", table, record)


def wall(workers: int) -> float:
    """Seconds of one study from the first word to the last."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.toml"
        study.write_text(STUDY)
        words = ["compare", str(study), "--out", f"{folder}/out", "--workers", str(workers)]
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "regrow", *words], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - begin


def table(record: dict[str, object]) -> str:
    """Median seconds and efficiency, that of one worker being one."""
    seconds = record["seconds"]
    assert isinstance(seconds, dict)
    medians = {int(number): statistics.median(found) for number, found in seconds.items()}
    least = min(medians)
    lines = ["| workers | seconds | efficiency |", "|---|---|---|"]
    for number, median in sorted(medians.items()):
        share = medians[least] * least / (median * number)
        spread = f"{min(seconds[str(number)]):.0f} to {max(seconds[str(number)]):.0f}"
        lines.append(f"| {number} | {median:.0f} ({spread}) | {share:.2f} |")
    about = f"{record['processor']}, {record['cores']} cores, {record['date']}; medians of turns."
    return "\n".join([*lines, "", about])


if __name__ == "__main__":
    main()
