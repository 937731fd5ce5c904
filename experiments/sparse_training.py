"""Does it matter how a mask moves in training? Five seeds of digits, from initial weights.

    python experiments/sparse_training.py                  # run what is missing
    python experiments/sparse_training.py --max-minutes 9  # a slice; call it again to go on
    python experiments/sparse_training.py --table          # only write the table from the record

All arms of a seed begin with the same initial weights, see the same data in the same order (the
dense network in another) for the same number of epochs, and follow one learning-rate cycle: a
random ERK mask that never moves, SET, RigL, GraNet-ST, GraNet, gradual magnitude pruning, and a
dense network. Of each arm the best epoch on validation data counts, among those after its last
event. Results are gathered in experiments/records/sparse_training.json, which is written after
every arm; the table is in docs/methods/granet.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tables

from regrow import Program, Pruning
from regrow.bench.arm import initial, open_fabric, precision, shapes, train_arm
from regrow.bench.environment import environment
from regrow.bench.job import Job
from regrow.bench.state import StateFile, identity
from regrow.bench.statistics import paired_difference, standard_deviation
from regrow.bench.tasks import checked_splits, find_task
from regrow.bench.trainer import Trainer
from regrow.core.files import write_atomic
from regrow.recipes import gradual, granet, granet_st, rigl, sparse_evolution

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "methods" / "granet.md"
RECORDS = ROOT / "experiments" / "records" / "sparse_training.json"
SPARSITIES = (0.95, 0.98)
EPOCHS, SEEDS = 30, 5

ARMS: dict[str, Callable[[float, int, int], Program]] = {
    "static": lambda s, epochs, seed: rigl(s, epochs, exchange=0.0, seed=seed),
    "set": lambda s, epochs, seed: sparse_evolution(s, epochs, seed=seed),
    "rigl": lambda s, epochs, seed: rigl(s, epochs, seed=seed),
    "granet_st": lambda s, epochs, seed: granet_st(s, epochs, seed=seed),
    "granet": lambda s, epochs, seed: granet(s, epochs, seed=seed),
    "gradual": lambda s, epochs, seed: gradual(
        s, epochs, end=epochs // 2, criterion="magnitude", seed=seed
    ),
}


def trained(seed: int, arm: str, program: Program | None, epochs: int) -> dict[str, Any]:
    """One arm's result, with the share of weights that have ever lived in training."""
    task = find_task("digits")
    training, model = task.training, next(iter(task.models))
    splits, make = checked_splits(task, ROOT / "data"), initial(task, model, seed)
    fabric = open_fabric("auto", 1, training)
    data = (splits.train, splits.validation)
    trainer = Trainer(fabric, task, training, make, *data, seed, notify=lambda _: None)
    handles: list[Pruning] = []
    job = Job(
        arm,
        None,
        program,
        (epochs,),
        epochs,
        training.lr,
        hook=lambda _model, _optimizer, pruning: handles.append(pruning),
    )
    with tempfile.TemporaryDirectory() as folder:
        mark = identity({"arm": arm, "seed": seed}, shapes(splits, make()))
        done = train_arm(trainer, job, StateFile(Path(folder) / "progress", mark), splits.test)
    explored = handles[-1].explored if handles else 1.0
    where = environment(fabric.device.type, precision(training))
    return {**done["result"], "explored": explored, "environment": where}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=RECORDS, help="the record")
    options = parser.parse_args()
    began = time.monotonic()
    found: list[dict[str, Any]] = (
        json.loads(options.out.read_text()) if options.out.exists() else []
    )
    cells: list[tuple[int, str, float]] = [(seed, "dense", 0.0) for seed in range(options.seeds)]
    cells += [(n, arm, s) for n in range(options.seeds) for s in SPARSITIES for arm in ARMS]
    done = {(each["seed"], each["arm"], each["target"], each["epochs"]) for each in found}
    for seed, arm, sparsity in cells:
        if options.table or (seed, arm, sparsity, options.epochs) in done:
            continue
        if time.monotonic() - began > 60 * options.max_minutes:
            print("stopped at the limit; call again to go on")
            return
        program = ARMS[arm](sparsity, options.epochs, seed) if arm in ARMS else None
        result = trained(seed, arm, program, options.epochs)
        found.append({"seed": seed, "arm": arm, "target": sparsity, **result})
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(options.out, (json.dumps(found, indent=1) + "\n").encode())
        shown = {k: round(result[k], 4) for k in ("sparsity", "test_accuracy", "explored")}
        print(seed, arm, sparsity, shown, flush=True)
    tables.replace(PAGE, "sparse-training", table(found))


def table(found: list[dict[str, Any]]) -> str:
    """Accuracy and explored share by arm and sparsity, and differences from the still mask."""
    lines = [
        "| arm | sparsity | test accuracy, % | minus static | weights explored |",
        "|---|---|---|---|---|",
    ]
    by_arm: dict[tuple[str, float], dict[int, dict[str, Any]]] = {}
    for each in found:
        by_arm.setdefault((each["arm"], each["target"]), {})[each["seed"]] = each
    for (arm, sparsity), rows in sorted(by_arm.items(), key=lambda item: item[0][1]):
        values = {seed: 100 * row["test_accuracy"] for seed, row in rows.items()}
        still = by_arm.get(("static", sparsity), {})
        gap = ""
        if arm not in ("static", "dense") and still:
            other = {seed: 100 * row["test_accuracy"] for seed, row in still.items()}
            each = paired_difference(values, other)
            gap = f"{each.mean:+.2f} ({each.low:+.2f} to {each.high:+.2f})"
        explored = statistics.fmean(row["explored"] for row in rows.values())
        spread = standard_deviation(values.values()) or 0.0
        lines.append(
            f"| {arm} | {sparsity:.0%} | {statistics.fmean(values.values()):.2f} ± {spread:.2f} | "
            f"{gap} | {explored:.0%} |"
        )
    last, seeds = found[-1], {each["seed"] for each in found}
    here = last["environment"]
    told = (
        f"digits_cnn, {len(seeds)} seeds, {last['epochs']} epochs from initial weights; "
        f"{here['processor']}, {here['precision']}, torch {here['torch']}, {here['date']}."
    )
    return "\n".join([*lines, "", told])


if __name__ == "__main__":
    main()
