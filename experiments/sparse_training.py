"""Does it matter how a mask moves in training? Five seeds of digits, from initial weights.

    python experiments/sparse_training.py                  # run what is missing
    python experiments/sparse_training.py --max-minutes 9  # a slice; call it again to go on

All arms of a seed begin with the same initial weights, see the same data in the same order (the
dense network in another) for the same number of epochs, and follow one learning-rate cycle: a
random ERK mask that never moves, SET, RigL, GraNet-ST, GraNet, gradual magnitude pruning, and a
dense network. Of each arm the best epoch on validation data counts, among those after its last
event. Results are gathered in experiments/records/sparse_training.json, which is written after
every arm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regrow import Program, Pruning
from regrow.bench.arm import initial, open_fabric, precision, shapes, train_arm
from regrow.bench.environment import environment
from regrow.bench.job import Job
from regrow.bench.state import StateFile, identity
from regrow.bench.tasks import checked_splits, find_task
from regrow.bench.trainer import Trainer
from regrow.core.files import write_atomic
from regrow.recipes import gradual, granet, granet_st, rigl, sparse_evolution

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "experiments" / "records" / "sparse_training.json"
SPARSITIES = (0.95, 0.98)
EPOCHS, SEEDS = 60, 5

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
        if (seed, arm, sparsity, options.epochs) in done:
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


if __name__ == "__main__":
    main()
