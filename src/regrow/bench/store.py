"""A store of finished cells: each is trained once, whoever asks for it and how often."""

from __future__ import annotations

import contextlib
import fcntl
import json
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning_fabric import Fabric
from torch import Tensor

from regrow.bench.arm import initial, open_fabric, precision, shapes, train_arm
from regrow.bench.cells import Cell
from regrow.bench.data import Splits
from regrow.bench.environment import environment
from regrow.bench.job import Hook, Job, Paused
from regrow.bench.preflight import check_task
from regrow.bench.state import StateFile, identity
from regrow.bench.tasks import checked_splits
from regrow.bench.trainer import Notify, Trainer
from regrow.core.errors import RegrowError, unknown
from regrow.core.files import write_atomic
from regrow.engine.prepare import fit

SCHEMA = 1
Rates: TypeAlias = dict[str, dict[str, float]]
"""Seconds per epoch by task and network."""
_FILES = ("final", "result.json")  # the record last: where it is, the cell is finished
_RATES = "rates.json"


class Claimed(Exception):
    """Another process is training the cell, or the dense network that it starts from."""


class Store:
    """Finished cells in a directory, and the means to finish more.

    `cells/KEY/` of each cell holds `result.json` once it is finished, `final` with weights and
    masks, `progress` while it is trained, `error.txt` where that failed, and `lock`, which a
    process holds while it works there; the system lets go of it however the process ends.
    """

    def __init__(
        self,
        directory: Path,
        *,
        data_dir: Path | None = None,
        device: str = "auto",
        hooks: Mapping[str, Hook] | None = None,
        notify: Notify = lambda event: None,
        command: str = "",
        stop_at: float | None = None,
        checkpoint_seconds: float = 20.0,
    ) -> None:
        """
        Args:
            directory: made when something is written.
            data_dir: where data sets lie.
            device: "auto", "cpu", "cuda" or "mps".
            hooks: what the tags of cells name.
            notify: told of arms and epochs.
            command: recorded, so that a cell can be repeated.
            stop_at: a time of `time.monotonic()` after which training pauses.
            checkpoint_seconds: at least so often is progress saved.
        """
        self.directory, self.stop_at = directory, stop_at
        self._data_dir, self._device, self._hooks = data_dir, device, dict(hooks or {})
        self._notify, self._command = notify, command
        self._checkpoint_seconds = checkpoint_seconds
        self._splits: dict[str, Splits] = {}
        self._tried: set[tuple[str, str]] = set()
        self._fabrics: dict[str, Fabric] = {}

    def finished(self, cell: Cell) -> bool:
        return (self._folder(cell) / "result.json").exists()

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What `result.json` of a finished cell says, or None.

        Raises:
            RegrowError: another version of regrow wrote it, or it is damaged.
        """
        path = self._folder(cell) / "result.json"
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RegrowError(
                f"{path} is damaged ({error}); remove {path.parent} to train the cell anew."
            ) from error
        version = found.get("schema") if isinstance(found, dict) else None
        if version != SCHEMA:
            raise RegrowError(
                f"{path} has schema {version!r}, this regrow reads {SCHEMA}; use the regrow that "
                "wrote it, or another directory."
            )
        if not isinstance(found.get("result"), dict):
            raise RegrowError(f"{path} is damaged; remove {path.parent} to train the cell anew.")
        assert isinstance(found, dict)
        return found

    def error(self, cell: Cell) -> str | None:
        """Why the cell could not be finished the last time, in one line, or None."""
        try:
            lines = (self._folder(cell) / "error.txt").read_text().strip().splitlines()
            return lines[-1].removeprefix(f"{RegrowError.__module__}.") if lines else "unknown"
        except FileNotFoundError:
            return None

    def forget_error(self, cell: Cell) -> None:
        (self._folder(cell) / "error.txt").unlink(missing_ok=True)

    def note_error(self, cell: Cell, reason: str) -> None:
        """Remember why a cell could not be finished elsewhere."""
        self._folder(cell).mkdir(parents=True, exist_ok=True)
        write_atomic(self._folder(cell) / "error.txt", reason.encode())

    def files(self, cell: Cell) -> dict[str, bytes]:
        """A finished cell as bytes, for another store.

        Raises:
            RegrowError: it is not finished.
        """
        try:
            return {name: (self._folder(cell) / name).read_bytes() for name in _FILES}
        except OSError as error:
            raise RegrowError(f"cell {cell.label!r} is not finished: {error}.") from error

    def put(self, cell: Cell, files: Mapping[str, bytes]) -> None:
        """Take over a cell that another store has finished."""
        self._folder(cell).mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            write_atomic(self._folder(cell) / name, files[name])

    def state(self, cell: Cell) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """State dict and keep masks (None for a dense cell) of a finished cell.

        Raises:
            RegrowError: it is not finished, or its file is damaged or of another network.
        """
        final = self._files(cell)[1].read()
        if final is None:
            raise RegrowError(
                f"the weights of cell {cell.label!r} are not at {self._folder(cell)}; finish it "
                "first, and if it was finished, remove that folder."
            )
        return final["state"], final["keep"]

    def seconds_per_epoch(self, cell: Cell) -> float:
        """What an epoch of a cell's network takes here, by a few steps that are not kept.

        Raises:
            RegrowError: data, task or device are not fit for it.
        """
        self._check(cell)
        job = Job(cell.label, None, None, cell.cycles, cell.epochs, cell.training.lr)
        threads = torch.get_num_threads()
        torch.set_num_threads(cell.training.threads or 1)
        try:
            return self._trainer(cell).seconds_per_epoch(job, self._files(cell)[0])
        finally:
            torch.set_num_threads(threads)

    def rates(self) -> Rates:
        """Measured seconds per epoch that were noted; none where they cannot be read."""
        try:
            found = json.loads((self.directory / _RATES).read_text())
            return {task: {m: float(s) for m, s in by.items()} for task, by in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def note_rates(self, rates: Rates) -> None:
        """Keep measured seconds per epoch for all that work at the study."""
        write_atomic(self.directory / _RATES, (json.dumps(rates, indent=1) + "\n").encode())

    def finish(self, cell: Cell) -> dict[str, Any]:
        """The cell's result; whatever is missing for it is trained first.

        Returns:
            schema, key, facts, result (see `train_arm`), history, events, environment, command.

        Raises:
            Claimed: another process works at the cell or at its dense network.
            Paused: the store's time is up; progress is saved.
            RegrowError: the program, data or device are not fit, an unknown tag, a damaged file.
        """
        needed = [cell] if cell.from_scratch else [cell.dense(), cell]
        missing = [each for each in needed if not self.finished(each)]
        with contextlib.ExitStack() as claims:
            for each in missing:
                claims.enter_context(self._claim(each))
            for each in missing:
                with self._errors_noted(each):
                    self._check(each)
            for each in missing:
                if not self.finished(each):  # by another process, just before the claim
                    with self._errors_noted(each):
                        self._train(each)
        result = self.result(cell)
        assert result is not None
        return result

    def _train(self, cell: Cell) -> None:
        folder, training = self._folder(cell), cell.training
        progress, final = self._files(cell)
        trainer, splits = self._trainer(cell), self._data(cell)
        torch.set_num_threads(training.threads or 1)
        finished = final.read()
        if finished is None:
            start = None if cell.from_scratch else self.state(cell.dense())[0]
            assert cell.lr is not None
            hook = self._hooks.get(cell.tag)
            job = Job(cell.label, start, cell.program, cell.cycles, cell.epochs, cell.lr, hook=hook)
            finished = train_arm(trainer, job, progress, splits.test, stop_at=self.stop_at)
            final.write(finished)
        record = {
            "schema": SCHEMA,
            "key": cell.key,
            "facts": cell.facts,
            "result": finished["result"],
            "history": finished["history"],
            "events": brief(finished["events"]),
            "environment": environment(trainer.fabric.device.type, precision(training)),
            "command": self._command,
        }
        write_atomic(folder / "result.json", (json.dumps(record, indent=1) + "\n").encode())
        progress.delete()
        self.forget_error(cell)

    def _check(self, cell: Cell) -> None:
        """Refuse what cannot be finished, before hours are spent on its dense network."""
        if cell.tag and cell.tag not in self._hooks:
            raise unknown(f"tag of cell {cell.label!r}:", cell.tag, self._hooks)
        tried = cell.task.name, cell.model
        make = initial(cell.task, cell.model, cell.seed)
        if tried not in self._tried:
            check_task(cell.task, cell.training, self._data(cell), make)
            self._tried.add(tried)
        if cell.program is not None:
            model = make()
            example = self._data(cell).train.images[:1]
            fit(model, cell.program, example, has_reference=False)

    def _trainer(self, cell: Cell) -> Trainer:
        wanted, data = precision(cell.training), self._data(cell)
        if wanted not in self._fabrics:
            self._fabrics[wanted] = open_fabric(self._device, 1, cell.training)
        return Trainer(
            self._fabrics[wanted],
            cell.task,
            cell.training,
            initial(cell.task, cell.model, cell.seed),
            data.train,
            data.validation,
            cell.seed,
            self._notify,
            self._checkpoint_seconds,
        )

    def _data(self, cell: Cell) -> Splits:
        if cell.task.name not in self._splits:
            self._splits[cell.task.name] = checked_splits(cell.task, self._data_dir)
        return self._splits[cell.task.name]

    def _files(self, cell: Cell) -> tuple[StateFile, StateFile]:
        """Checkpoint, and weights with masks."""
        model = initial(cell.task, cell.model, cell.seed)()
        mark, folder = identity(cell.facts, shapes(self._data(cell), model)), self._folder(cell)
        return StateFile(folder / "progress", mark), StateFile(folder / "final", mark)

    def _folder(self, cell: Cell) -> Path:
        return self.directory / "cells" / cell.key

    @contextlib.contextmanager
    def _claim(self, cell: Cell) -> Iterator[None]:
        folder = self._folder(cell)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = open(folder / "lock", "wb")  # noqa: SIM115
        except OSError as error:
            raise RegrowError(
                f"{folder} cannot be made: {error.strerror}; choose another directory."
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Claimed(f"another process works at {folder}") from None
            for leftover in folder.glob(".*.tmp"):  # of a process killed while it wrote
                leftover.unlink(missing_ok=True)
            yield

    @contextlib.contextmanager
    def _errors_noted(self, cell: Cell) -> Iterator[None]:
        try:
            yield
        except Paused:
            raise
        except Exception:
            write_atomic(self._folder(cell) / "error.txt", traceback.format_exc().encode())
            raise


def brief(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mask events without their layers, of which the last event tells how many are kept."""
    short = [{k: v for k, v in event.items() if k != "layers"} for event in events]
    if short:
        short[-1]["kept_by_layer"] = {
            layer["name"]: layer["kept"] for layer in events[-1].get("layers", ())
        }
    return short
