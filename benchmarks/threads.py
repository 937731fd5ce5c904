"""How much faster the sparse runtime is on two threads: the networks of benchmarks/speed.py.

    python benchmarks/threads.py [--rounds 60]

Calls of one thread and of two take turns within a second, since what else a machine does changes
within minutes, and so do two networks of one thread each at once, which share nothing but the
machine. Wants two idle cores. Writes benchmarks/records/threads.json and a table in
docs/results.md.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from shrink import publish
from speed import networks

import regrow_runtime
from regrow.bench.environment import processor
from regrow.export.deploy import pack

BATCHES = (16, 64)
CALLS = 3  # of each turn, behind one of both threads that is not timed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--table", action="store_true", help="only the table, from the record")
    options = parser.parse_args()
    if options.table:
        publish("threads", table)
        return
    rounds = options.rounds
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
    publish("threads", table, record)


def turns(path: Path, batch: int, rounds: int) -> dict[str, object]:
    """Median milliseconds of one thread and of two, and quartiles over the rounds of how many times
    as fast two are; and how many times as fast two networks are that share nothing."""
    one, two, other = (regrow_runtime.load(path, threads=threads) for threads in (1, 2, 1))
    images = np.random.default_rng(0).standard_normal((batch, 3, 32, 32), np.float32)
    taken: dict[str, list[float]] = {"one": [], "two": [], "both": []}
    with ThreadPoolExecutor(2) as pool:

        def both() -> None:
            for call in [pool.submit(repeated, network) for network in (one, other)]:
                call.result()

        def repeated(network: regrow_runtime.Network) -> None:
            for _ in range(CALLS):
                network(images)

        for _ in range(rounds):
            for name, work in (
                ("one", lambda: repeated(one)),
                ("two", lambda: repeated(two)),
                ("both", both),
            ):
                two(images)
                start = time.perf_counter()
                work()
                taken[name].append(1e3 * (time.perf_counter() - start) / CALLS)
    each = list(zip(*taken.values(), strict=True))
    return {
        "milliseconds": {name: statistics.median(taken[name]) for name in ("one", "two")},
        "faster": statistics.quantiles([alone / shared for alone, shared, _ in each], n=4),
        "apart": statistics.quantiles([2 * alone / pair for alone, _, pair in each], n=4),
    }


def table(record: dict[str, object]) -> str:
    lines = [
        "| network | batch | one thread, ms | two, ms | times as fast | two networks apart |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:  # type: ignore[attr-defined]
        one, two = (f"{row['milliseconds'][name]:.3g}" for name in ("one", "two"))
        faster, apart = (
            f"{middle:.2f} ({low:.2f} to {high:.2f})"
            for low, middle, high in (row["faster"], row["apart"])
        )
        cells = [row["network"], str(row["batch"]), one, two, f"**{faster}**", apart]
        lines.append("| " + " | ".join(cells) + " |")
    about = f"{record['processor']}, {record['date']}; medians and quartiles of "
    about += f"{record['rounds']} turns."
    return "\n".join([*lines, "", about])


if __name__ == "__main__":
    main()
