"""Training curves of finished cells and runs as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrow.bench.cells import Cell
from regrow.bench.comparison.grid import Place
from regrow.bench.comparison.strategies import DENSE
from regrow.bench.report.records import read_run
from regrow.bench.store import Store
from regrow.core.errors import RegrowError

_TAGS = {
    "train_loss": "loss/train",
    "validation_accuracy": "accuracy/validation",
    "sparsity": "sparsity/weights",
    "lr": "learning rate",
}


@dataclass(frozen=True)
class Curves:
    """What is drawn of one training.

    Attributes:
        path: its name in TensorBoard, in parts; the folder of its file.
        epochs: rows with "epoch" and the scalars of that epoch.
        events: of the mask, with "epoch", "pruned" and "regrown".
        test: accuracy at the end, a fraction.
    """

    path: tuple[str, ...]
    epochs: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    test: float


def study_curves(cells: Mapping[Place, Cell], store: Store) -> Iterable[Curves]:
    """Of every finished cell of a study and of its dense networks."""
    dense: set[str] = set()
    for place, cell in cells.items():
        above = (place.task, place.model)
        rate = () if place.trial == 1 else (f"learning rate x {place.trial:g}",)
        seed = f"seed {place.seed}"
        path = (*above, place.pattern, place.arm, f"{100 * place.sparsity:g} %", *rate, seed)
        named = [(cell, path)]
        start = cell.dense()
        if start.key != cell.key and start.key not in dense:
            dense.add(start.key)
            named.insert(0, (start, (*above, DENSE, seed)))
        for each, where in named:
            record = store.result(each)
            if record is not None:
                test = float(record["result"]["test_accuracy"])
                yield Curves(where, record["history"], record["events"], test)


def run_curves(runs: Sequence[Path]) -> Iterable[Curves]:
    """Of every arm of run directories.

    Raises:
        RegrowError: a record cannot be read.
    """
    for path in runs:
        run = read_run(path)
        for name, arm in run.arms.items():
            yield Curves((path.name, name), arm.course, arm.events, arm.test)


def write_curves(curves: Iterable[Curves], logs: Path) -> int:
    """Write event files, in place of those that an earlier call wrote.

    Args:
        curves: of trainings.
        logs: what `tensorboard --logdir` shall be given.

    Returns:
        how many trainings were written.

    Raises:
        RegrowError: TensorBoard is not installed, or a file cannot be written.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise RegrowError(
            f"TensorBoard cannot be imported ({error}); install it with "
            "`pip install 'regrow[tensorboard]'`."
        ) from error
    count = 0
    for each in curves:
        # A part of a name, such as a task "package.module:function", is one folder.
        folder = logs.joinpath(*(part.replace("/", "-") for part in each.path))
        try:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            with SummaryWriter(str(folder)) as writer:
                _write(each, writer)
        except OSError as error:
            raise RegrowError(f"{folder} cannot be written: {error.strerror}.") from error
        count += 1
    return count


def _write(curves: Curves, writer: Any) -> None:
    last = 0
    for row in curves.epochs:
        last = int(row["epoch"])
        for key, tag in _TAGS.items():
            if key in row:
                writer.add_scalar(tag, float(row[key]), last)
    for event in curves.events:
        for key in ("pruned", "regrown"):
            if key in event:
                writer.add_scalar(f"weights/{key}", float(event[key]), int(event["epoch"]))
    writer.add_scalar("accuracy/test", curves.test, last)
