"""What the table scripts share: their options, the study behind a table, and its committed record.

A script describes its table and calls `main`:

    TABLE = Table("digits", ARMS, {arm: (0, 1, 2) for arm in ARMS})
    if __name__ == "__main__":
        main(TABLE, write, __doc__)

Cells are kept under runs/headline/ and shared by all tables; the record, in
experiments/records/headline/, holds all that a table is made of.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regrow.bench.cells import Cell
from regrow.bench.job import Hook
from regrow.bench.store import Store
from regrow.bench.study import estimate, run_cells, serve
from regrow.core.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "experiments" / "records" / "headline"
SCHEMA = 1
Cells = dict[tuple[str, int], Cell]


@dataclass(frozen=True)
class Table:
    """The cells behind a table.

    Attributes:
        name: of its record.
        arms: makes an arm's cell of a seed, by the arm's name.
        seeds: of each arm.
        hooks: what the tags of cells name.
    """

    name: str
    arms: Mapping[str, Callable[[int], Cell]]
    seeds: Mapping[str, Iterable[int]]
    hooks: Mapping[str, Hook] = field(default_factory=dict)

    def cells(self, only: str = "*", seeds: Iterable[int] | None = None) -> Cells:
        """Cells by arm and seed: all arms of the first seed, then of the next."""
        wanted = None if seeds is None else set(seeds)
        order = sorted({seed for each in self.seeds.values() for seed in each})
        return {
            (arm, seed): replace(make(seed), name=f"{arm}, seed {seed}")
            for seed in order
            if wanted is None or seed in wanted
            for arm, make in self.arms.items()
            if seed in self.seeds[arm] and fnmatch.fnmatchcase(arm, only)
        }

    @property
    def path(self) -> Path:
        """Where the record lies."""
        return RECORDS / f"{self.name}.json"


def main(
    table: Table, write: Callable[[dict[str, Any]], None], description: str | None = None
) -> None:
    """Finish a table's cells as the command line says, gather the record, and write the table.

    Args:
        table: its cells.
        write: called with the record when every cell of the table is in it; with `--partial`
            also before, with the arms and seeds that are not in it as its "missing".
        description: of the script, for its help.
    """
    options = parse(description)
    cells = table.cells(options.only, options.seeds)
    if not cells:
        raise SystemExit("no cell is left: look at --only and --seeds")
    if options.missing:
        recorded = {entry["key"] for entry in load(table)["cells"]}
        cells = {place: cell for place, cell in cells.items() if cell.key not in recorded}
    store = Store(
        options.out,
        data_dir=options.data_dir,
        device=options.device,
        hooks=table.hooks,
        command=f"python experiments/headline/{Path(sys.argv[0]).name}",
        stop_at=time.monotonic() + 60 * options.max_minutes,
    )
    every = list(cells.values())
    if options.worker:
        serve(every, store, workers=options.workers, tell=say)
        return
    if not options.table:
        say(estimate(every, store).text(options.workers))
        if options.dry_run:
            for cell in every:
                say(f"{cell.key} {_standing(cell, store):>8} {cell.epochs:>4} epochs  {cell.label}")
            return
        command = [sys.executable, *sys.argv, "--worker"]
        try:
            now = run_cells(every, store, workers=options.workers, command=command, tell=say)
        except KeyboardInterrupt:
            raise SystemExit("stopped; call again to go on") from None
        say(now.text(options.workers))
        for cell in every:
            if error := store.error(cell) or store.error(cell.dense()):
                say(f"failed: {cell.label} ({cell.key}): {error}")
        collect(table, store)
    record = load(table)
    missing = [key for key in table.cells() if key not in {_place(c) for c in record["cells"]}]
    if missing and not options.partial:
        say(f"{len(missing)} cells are missing in {table.path.name}; the table is not written")
    else:
        write({**record, "missing": missing} if missing else record)


def parse(description: str | None) -> argparse.Namespace:
    """The options of a table script."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--partial", action="store_true", help="write the table with gaps too")
    parser.add_argument("--missing", action="store_true", help="only what the record lacks")
    parser.add_argument("--dry-run", action="store_true", help="only tell what is to be done")
    parser.add_argument("--data-dir", type=Path, help="where data sets lie (else $REGROW_DATA)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "headline")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes, each of one thread")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="then pause")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these")
    parser.add_argument("--only", default="*", metavar="GLOB", help="only these arms")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def collect(table: Table, store: Store) -> dict[str, Any]:
    """Gather the finished cells of a table into its record, and write it.

    What an earlier record says about a cell that is not in the store stays, as long as the table
    still has that very cell.
    """
    before = load(table)
    known = {entry["key"]: entry for entry in (*before["cells"], *before["dense"])}

    def entry(cell: Cell) -> dict[str, Any] | None:
        found = store.result(cell)
        return known.get(cell.key) if found is None else _compact(found)

    cells = table.cells()
    gathered = [
        {"arm": arm, "seed": seed, **found}
        for (arm, seed), cell in cells.items()
        if (found := entry(cell)) is not None
    ]
    starts = {cell.dense().key: cell.dense() for cell in cells.values() if cell.program is not None}
    dense = [found for cell in starts.values() if (found := entry(cell)) is not None]
    record = {"schema": SCHEMA, "table": table.name, "cells": gathered, "dense": dense}
    RECORDS.mkdir(parents=True, exist_ok=True)
    write_atomic(table.path, (json.dumps(record, separators=(",", ":")) + "\n").encode())
    return record


def load(table: Table) -> dict[str, Any]:
    """The table's committed record; an empty one where there is none."""
    try:
        found = json.loads(table.path.read_text())
    except FileNotFoundError:
        return {"schema": SCHEMA, "table": table.name, "cells": [], "dense": []}
    assert isinstance(found, dict)
    return found


def _compact(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: result[name] for name in ("key", "facts", "result", "environment", "command")}
    return {**kept, "validation": [each["validation_accuracy"] for each in result["history"]]}


def _place(entry: Mapping[str, Any]) -> tuple[str, int]:
    return entry["arm"], entry["seed"]


def _standing(cell: Cell, store: Store) -> str:
    if store.finished(cell):
        return "done"
    return "failed" if store.error(cell) or store.error(cell.dense()) else "to do"


def say(line: str) -> None:
    print(line, flush=True)
