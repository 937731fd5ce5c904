"""Trained sparse networks, packed, for the benchmarks of file and runtime; and a layer profile.

    REGROW_DATA=FOLDER python experiments/headline/checkpoints.py --max-minutes 10

Call it again to go on: each network takes about forty minutes on two cores. FOLDER holds
cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from arms import ARMS, Setting
from common import ROOT, say
from figures import layer_profile

from regrow.bench.cells import Cell
from regrow.bench.job import Paused
from regrow.bench.store import Store
from regrow.bench.tasks import Training, cifar10
from regrow.cli.inspection import look
from regrow.export.deploy import pack

FOLDER = ROOT / "experiments" / "checkpoints"
FIGURE = ROOT / "docs" / "img" / "headline-vgg16-profile.svg"
MOST_BYTES = 3_000_000


@dataclass(frozen=True)
class Checkpoint:
    """One network.

    Attributes:
        name: of its file.
        model: one of the CIFAR networks.
        training: of the dense network and after it.
        epochs: after the first cut.
        sparsity: the target.
        arm: how it is pruned.
    """

    name: str
    model: str
    training: Training
    epochs: int
    sparsity: float
    arm: str

    def cell(self) -> Cell:
        make = ARMS[self.arm].program
        assert make is not None
        steps = -(-45_000 // self.training.batch_size)
        overshoot = 1 - 0.35 * (1 - self.sparsity)
        program = make(Setting(self.sparsity, overshoot, self.epochs, steps), 0)
        return Cell(cifar10(), self.model, 0, self.training, program, name=self.name)


PRESET = replace(cifar10().training, threads=2)
LONGER = replace(PRESET, dense_epochs=54)
# VGG16 is trained modestly: what it is for is its masks and layer profile, not its accuracy.
MODEST = replace(
    PRESET, dense_epochs=5, lr=0.1, fine_tune_lr=0.05, evidence_batches=16, compile="on"
)
CHECKPOINTS = (
    Checkpoint("resnet20-cifar10-s95", "resnet20", LONGER, 10, 0.95, "newton_saliency"),
    Checkpoint("vgg16-cifar10-s96.39", "vgg16_bn", MODEST, 4, 0.9639, "newton_saliency"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="where data sets lie (else $REGROW_DATA)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "headline")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="then pause")
    parser.add_argument("--only", default="*", metavar="GLOB", help="only these networks")
    parser.add_argument("--table", action="store_true", help="only the figure, from the file")
    options = parser.parse_args()
    if options.table:
        _draw()
        return
    stop_at = time.monotonic() + 60 * options.max_minutes
    store = Store(
        options.out,
        data_dir=options.data_dir,
        stop_at=stop_at,
        command="python experiments/headline/checkpoints.py",
    )
    for checkpoint in CHECKPOINTS:
        if not fnmatch.fnmatchcase(checkpoint.name, options.only):
            continue
        try:
            _write(checkpoint, store)
        except Paused:
            say(f"{checkpoint.name} is not finished; call again to go on")
            return
    _draw()


def _draw() -> None:
    """The layer profile of the VGG16, from its file."""
    (path,) = FOLDER.glob("vgg16-*.regrow")
    counts = [(each["name"], each["total"], each["kept"]) for each in look(path).counts["layers"]]
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(layer_profile(counts), encoding="utf-8")


def _write(checkpoint: Checkpoint, store: Store) -> None:
    cell = checkpoint.cell()
    found = store.finish(cell)
    dense = store.finish(cell.dense())
    state, keep = store.state(cell)
    assert keep is not None
    model = cell.task.models[cell.model](torch.Generator())
    model.load_state_dict(state)
    about = {
        "trained": found["facts"],
        "result": found["result"],
        "dense_test_accuracy": dense["result"]["test_accuracy"],
        "dense_seconds": dense["result"]["seconds"],
        "environment": found["environment"],
        "command": found["command"],
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{checkpoint.name}.regrow"
    example = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    packing = pack(model, path, example, masks=keep, metadata=about, zstd=False)
    if packing.bytes > MOST_BYTES:
        raise SystemExit(f"{path.name} has {packing.bytes} bytes, more than {MOST_BYTES}")
    say(f"{path.name}: {packing.bytes} bytes, test {100 * found['result']['test_accuracy']:.2f} %")


if __name__ == "__main__":
    main()
