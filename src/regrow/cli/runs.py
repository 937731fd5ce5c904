"""Run directories and packed files as sources: which file, which network, which data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regrow.core.errors import RegrowError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from regrow.bench.data import Splits
    from regrow.bench.tasks import Task


@dataclass(frozen=True)
class Network:
    """A network with its weights, its keep masks, its task and the task's data."""

    model: nn.Module
    masks: Mapping[str, Tensor] | None
    task: Task
    splits: Splits


def network_of_run(
    run: Path, packed: Path, data_dir: Path | None, *, shrunk: bool = True
) -> Network:
    """The network of a run with the weights of one of its packed files.

    Args:
        run: the run directory.
        packed: the file.
        data_dir: where data sets lie.
        shrunk: where the run cut units, cut them out.

    Raises:
        RegrowError: its task or data are not here, or its network has changed since.
    """
    from regrow.bench.arm import initial
    from regrow.bench.config import configure
    from regrow.bench.tasks import checked_splits
    from regrow.engine.shrink import shrink
    from regrow.export.packed import load, unpack

    config, task = configure(str(run / "recipe.toml"))
    splits = checked_splits(task, data_dir)
    model, masks = load(initial(task, config.model, config.seed)(), packed), unpack(packed).keep
    if not (shrunk and structured(run) and masks):
        return Network(model, masks, task, splits)
    smaller = shrink(model.eval(), splits.train.images[:1], masks).model
    return Network(smaller, None, task, splits)


def structured(run: Path) -> bool:
    """Whether a run cuts units, so that its networks can be shrunk."""
    from regrow.bench.config import configure

    return configure(str(run / "recipe.toml"))[0].program().structured


def network_of_task(name: str, model: str | None, packed: Path, data_dir: Path | None) -> Network:
    """A task's network with the weights of a packed file; `model` None is the task's first.

    Raises:
        RegrowError: there is no such task or model, its data are not here, or the weights are of
            another network.
    """
    from regrow.bench.arm import initial
    from regrow.bench.tasks import checked_splits, find_task
    from regrow.export.packed import load, unpack

    task = find_task(name)
    chosen = next(iter(task.models)) if model is None else model
    if chosen not in task.models:
        raise unknown(f"model of task {task.name!r}:", chosen, task.models)
    splits = checked_splits(task, data_dir)
    masks = unpack(packed).keep
    return Network(load(initial(task, chosen, 0)(), packed), masks, task, splits)


def packed_file(run: Path, arm: str | None) -> Path:
    """The packed file of one arm of a finished run.

    Raises:
        RegrowError: there is no finished run, or no such arm.
    """
    from regrow.bench.report.records import read_run

    if not (run / "record.json").is_file():
        if (run / "recipe.toml").exists():
            raise RegrowError(
                f"{run} is not finished; go on with `regrow resume {shlex.quote(str(run))}`."
            )
        raise RegrowError(f"{run} holds no run; give a run directory, or a .regrow file.")
    record = read_run(run)
    if arm is not None and arm not in record.arms:
        raise unknown("arm", arm, record.arms)
    if arm is None or arm == record.recipe:
        return run / "model.regrow"
    return run / "state" / f"{arm}.regrow"


def check_apart(out: Path, packed: Path | None = None) -> None:
    """Refuse to write over what is read, and over the files of a run or of a study.

    Raises:
        RegrowError: `out` is one of them.
    """
    from regrow.bench.deliver import FILES

    target = out.resolve()
    if packed is not None and target == packed.resolve():
        raise RegrowError(f"{out} is the file that is read; choose another name.")
    for folder in (target.parent, target.parent.parent):
        held = {folder / name for name in FILES} | set((folder / "state").glob("*"))
        held |= {folder / name for name in ("study.toml", "records.csv")}
        known = (folder / "recipe.toml").exists() or (folder / "study.toml").exists()
        if known and target in held:
            raise RegrowError(f"{out} is a file of {folder.name} itself; choose another name.")
