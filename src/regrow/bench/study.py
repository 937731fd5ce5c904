"""A study: many cells finished by several processes, which may be stopped at any moment."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from regrow.bench.cells import Cell
from regrow.bench.job import Paused
from regrow.bench.store import Claimed, Rates, Store
from regrow.core.errors import RegrowError

Tell = Callable[[str], None]
_POLL = 0.5  # seconds between two looks at cells that others work at


@dataclass(frozen=True)
class Estimate:
    """How far a study is, the dense networks of its cells counted among them.

    Attributes:
        cells, done, failed: how many.
        epochs: left, at most; a cell in progress counts in full.
        minutes: that one worker needs for them, or None while nothing is known of a network.
    """

    cells: int
    done: int
    failed: int
    epochs: int
    minutes: float | None

    def text(self, workers: int = 1) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.done} of {self.cells} cells done{failed}; {self.epochs} epochs left, "
            f"{self.time(workers)}"
        )

    def time(self, workers: int = 1) -> str:
        """The time left, in words."""
        if self.minutes is None:
            return "for how long is unknown yet"
        return f"about {self.minutes / workers:.1f} minutes with {workers} at work"


def estimate(cells: Iterable[Cell], store: Store, rates: Rates | None = None) -> Estimate:
    """How much of the cells is left, by the seconds per epoch of those that are finished.

    An epoch of a network costs what its finished cells took, dense ones and pruned ones apart as
    soon as there are both; where nothing of a network is finished, what a few of its steps took,
    or what an epoch costs in its task.

    Args:
        cells: of the study.
        store: where they are kept.
        rates: of `measured`; by default those that the store notes.
    """
    every = with_dense(cells)
    spent = _spent(every, store)
    rates = store.rates() if rates is None else rates
    left = [cell for cell in every if not store.finished(cell)]
    minutes: float | None = 0.0
    for cell in left:
        task, model, pruned = _kind(cell)
        steps = rates.get(task, {})
        known = (
            spent.get((task, model, pruned)),
            spent.get((task, model, not pruned)),
            steps.get(model),
            spent.get((task, "", False)),
            max(steps.values(), default=None),
        )
        rate = next((each for each in known if each is not None), None)
        minutes = None if minutes is None or rate is None else minutes + cell.epochs * rate / 60
    failed = sum(1 for cell in left if _failed(cell, store))
    epochs = sum(cell.epochs for cell in left)
    return Estimate(len(every), len(every) - len(left), failed, epochs, minutes)


def measured(cells: Iterable[Cell], store: Store) -> Rates:
    """Seconds per epoch, by a few steps, of the networks of which no cell is finished yet.

    By task and network. Networks that cannot be tried here, since their data are elsewhere, are
    left out; what is built small is taken to cost what its task's largest network does.
    """
    every = list(cells)
    spent = _spent(with_dense(every), store)
    found: Rates = {}
    networks = {_kind(cell)[:2]: cell for cell in every if cell.program is not None}
    for (task, model), cell in networks.items():
        if any((task, model, pruned) in spent for pruned in (False, True)):
            continue
        with contextlib.suppress(Exception):  # training will tell what is wrong
            found.setdefault(task, {})[model] = store.seconds_per_epoch(cell.dense())
    return found


def _spent(every: Sequence[Cell], store: Store) -> dict[tuple[str, str, bool], float]:
    """Seconds per epoch of finished cells, by kind, and by task alone ("" for the network)."""
    sums: dict[tuple[str, str, bool], list[float]] = {}
    for cell in every:
        record = store.result(cell)
        if record is None:
            continue
        for key in (_kind(cell), (cell.task.name, "", False)):
            both = sums.setdefault(key, [0.0, 0.0])
            both[0] += record["result"]["seconds"]
            both[1] += record["result"]["epochs"]
    return {key: seconds / epochs for key, (seconds, epochs) in sums.items()}


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    *,
    workers: int = 1,
    command: Sequence[str] = (),
    tell: Tell = lambda line: None,
) -> Estimate:
    """Finish the cells, or as many as the store's time allows.

    Cells that failed before are tried again. A kill at any moment, of a worker or of all, loses
    what was done since the last checkpoint and nothing else.

    Args:
        cells: in the order of their importance; one that starts from a dense network which another
            worker is training is left for later.
        store: where they are kept.
        workers: processes; a single one is this process itself.
        command: starts a process that makes the same cells and store and calls `serve`; needed
            for several workers.
        tell: called with a line about each cell that ends.

    Returns:
        how far the cells are now.

    Raises:
        RegrowError: there are no workers, or several and no command that starts them.
    """
    if workers < 1 or (workers > 1 and not command):
        raise RegrowError(
            f"{workers} workers cannot be started; give at least 1, and for more than 1 the "
            "command that starts one."
        )
    for cell in with_dense(cells):
        store.forget_error(cell)
    if workers == 1:
        work(cells, store, tell=tell)
        return estimate(cells, store)
    # In sessions of their own: Ctrl-C is for this process, which ends them.
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        for _ in range(workers)
    ]
    try:
        for number, process in enumerate(started, 1):
            code = process.wait()
            if code:
                tell(f"worker {number} of {workers} ended with code {code}")
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
    return estimate(cells, store)


def serve(cells: Sequence[Cell], store: Store, *, workers: int, tell: Tell) -> None:
    """What a worker process does: as `work`, but it ends with the process that started it.

    Its standard input must be a pipe from that process, as in `run_cells`.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(cells, store, workers=workers, tell=tell)


def work(
    cells: Sequence[Cell], store: Store, *, workers: int = 1, tell: Tell = lambda line: None
) -> None:
    """Finish cells one by one until none is left, all that are left have failed, or time is up.

    Args:
        cells: see `run_cells`.
        store: where they are kept.
        workers: how many processes work at the cells, for the estimate that is told.
        tell: called with a line about each cell that ends.
    """
    stop_at = math.inf if store.stop_at is None else store.stop_at
    # Beside what the store notes: where a cell's folder cannot be written, nor can its error.
    lost: set[str] = set()
    with contextlib.suppress(Paused):
        while time.monotonic() < stop_at:
            left = [
                each
                for each in cells
                if each.key not in lost and not store.finished(each) and not _failed(each, store)
            ]
            if not left:
                return
            # After each cell from the top again: another may have been freed meanwhile.
            if not any(_ended(cell, cells, store, workers, tell, lost) for cell in left):
                time.sleep(_POLL)


def _ended(
    cell: Cell, cells: Sequence[Cell], store: Store, workers: int, tell: Tell, lost: set[str]
) -> bool:
    """Whether this process finished the cell now, or failed to; not if another works at it."""
    if store.finished(cell) or _failed(cell, store):  # by another, since the list was made
        return False
    try:
        result = store.finish(cell)["result"]
    except Claimed:
        return False
    except Paused:
        raise
    except Exception as error:
        lost.add(cell.key)
        message = " ".join(str(error).split())
        tell(f"{cell.label} ({cell.key}) failed: {type(error).__name__}: {message}")
        return True
    now = estimate(cells, store)
    tell(
        f"[{now.done}/{now.cells}] {cell.label}: test {100 * result['test_accuracy']:.2f} %, "
        f"sparsity {100 * result['sparsity']:.2f} %, {result['epochs']} epochs in "
        f"{result['seconds']:.0f} s; {now.time(workers)}"
    )
    return True


def _failed(cell: Cell, store: Store) -> bool:
    return store.error(cell) is not None or store.error(cell.dense()) is not None


def _kind(cell: Cell) -> tuple[str, str, bool]:
    """Cells of one kind take about as long for an epoch."""
    return cell.task.name, cell.model, cell.program is not None


def with_dense(cells: Iterable[Cell]) -> list[Cell]:
    """The cells and the dense ones that they start from, each once."""
    return list({each.key: each for cell in cells for each in (cell.dense(), cell)}.values())


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
