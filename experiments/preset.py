"""How well, and in what time, the CIFAR-10 preset trains its dense ResNet-20 on this machine.

    REGROW_DATA=FOLDER python experiments/preset.py

Two threads, seed 0. Writes experiments/records/preset.json and a paragraph of docs/results.md. It
can be stopped and called again, and counts the time of its parts. FOLDER holds
cifar-10-batches-bin (`regrow data get cifar10`); nothing else should run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import tables

from regrow.bench.cells import Cell
from regrow.bench.store import Store
from regrow.bench.tasks import cifar10

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "experiments" / "records" / "preset.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "preset")
    parser.add_argument("--data-dir", type=Path, help="where data sets lie (else $REGROW_DATA)")
    parser.add_argument("--table", action="store_true", help="only the paragraph, from the record")
    options = parser.parse_args()
    if not options.table:
        task = cifar10()
        command = "python experiments/preset.py"
        store = Store(options.out, data_dir=options.data_dir, command=command)
        cell = Cell(task, "resnet20", 0, replace(task.training, threads=2), name="preset")
        RECORD.write_text(json.dumps(store.finish(cell), indent=1) + "\n")
    record = json.loads(RECORD.read_text())
    result, here = record["result"], record["environment"]
    paragraph = (
        f"{result['epochs']} epochs, {100 * result['test_accuracy']:.2f} % on the test images "
        f"(validation {100 * result['validation_accuracy']:.2f} %) in {result['seconds'] / 60:.1f} "
        f"minutes; seed 0; {here['processor']}, {here['threads']} threads, {here['precision']}, "
        f"torch {here['torch']}, {here['date']}."
    )
    tables.replace(ROOT / "docs" / "results.md", "preset", paragraph)
    print(paragraph)


if __name__ == "__main__":
    main()
