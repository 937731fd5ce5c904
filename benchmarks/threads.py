"""How much faster the sparse runtime is on two threads: the networks of benchmarks/speed.py.

    python benchmarks/threads.py [--rounds 60]

Calls of one thread and of two take turns within a second, since what else a machine does changes
within minutes. Wants two idle cores. Writes benchmarks/records/threads.json and a table in
docs/results.md.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from shrink import publish
from speed import networks

import regrow_runtime
from regrow.bench.environment import processor
from regrow.export.deploy import pack

BATCHES = (16, 64)
CALLS = 3  # of each turn, behind one that is not timed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in networks():
            path = Path(folder) / "network.regrow"
            pack(model, path, example=torch.zeros(1, 3, 32, 32))
            for batch in BATCHES:
                rows.append({"network": name, "batch": batch, **turns(path, batch, rounds)})
                print(rows[-1], flush=True)
    record: dict[str, object] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": processor(),
        "rounds": rounds,
        "rows": rows,
    }
    publish("threads", record, table(record))


def turns(path: Path, batch: int, rounds: int) -> dict[str, object]:
    """Median milliseconds of one thread and of two, and the ratio's quartiles over the rounds."""
    made = {threads: regrow_runtime.load(path, threads=threads) for threads in (1, 2)}
    images = np.random.default_rng(0).standard_normal((batch, 3, 32, 32), np.float32)
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for threads, network in made.items():
            network(images)
            start = time.perf_counter()
            for _ in range(CALLS):
                network(images)
            taken[threads].append(1e3 * (time.perf_counter() - start) / CALLS)
    ratios = [one / two for one, two in zip(taken[1], taken[2], strict=True)]
    return {
        "milliseconds": {str(threads): statistics.median(each) for threads, each in taken.items()},
        "ratio": statistics.quantiles(ratios, n=4),
    }


def table(record: dict[str, object]) -> str:
    lines = [
        "| network | batch | one thread, ms | two threads, ms | times as fast (quartiles) |",
        "|---|---|---|---|---|",
    ]
    for row in record["rows"]:  # type: ignore[attr-defined]
        one, two = (f"{row['milliseconds'][threads]:.3g}" for threads in "12")
        low, middle, high = (f"{ratio:.2f}" for ratio in row["ratio"])
        cells = [row["network"], str(row["batch"]), one, two, f"**{middle}** ({low} to {high})"]
        lines.append("| " + " | ".join(cells) + " |")
    about = f"{record['processor']}, {record['date']}; medians of {record['rounds']} turns."
    return "\n".join([*lines, "", about])


if __name__ == "__main__":
    main()
