"""The cells of a study on a Ray cluster, each a task of one processor; records come home."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from regrow.bench.cells import Cell
from regrow.bench.comparison.study_file import study_of
from regrow.bench.store import Store
from regrow.bench.study import Tell, estimate
from regrow.bench.toml import parse
from regrow.core.errors import RegrowError

Files = Mapping[str, bytes]
_CONNECT = 10  # seconds


def run_on_cluster(
    text: str,
    cells: list[Cell],
    store: Store,
    address: str,
    *,
    data_dir: Path | None,
    device: str,
    tell: Tell,
) -> None:
    """Finish a study's cells on a cluster; what is in the store is not done again.

    A cell is trained there as it would be here, so its record is the same but for date, seconds
    and the machine's name. A cell that fails is noted in the store; a node that is lost costs the
    cells that it was at, which Ray starts anew elsewhere.

    Args:
        text: of the study's file, from which a node makes the same cells.
        cells: all of them.
        store: where records and weights are collected.
        address: "ray://HOST:PORT", "HOST:PORT", or "local" for this machine alone.
        data_dir: where data sets lie on every node.
        device: of every task.
        tell: called with a line about each cell that ends.

    Raises:
        RegrowError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _ray()
    left = {cell.key: cell for cell in cells if not store.finished(cell)}
    for cell in left.values():
        store.forget_error(cell)
        store.forget_error(cell.dense())
    starts = {cell.dense().key: cell.dense() for cell in left.values()}
    first = [cell for cell in starts.values() if not store.finished(cell)]
    waiting = [cell for cell in left.values() if cell.key not in starts]
    where = None if data_dir is None else str(data_dir.resolve())
    with _connected(ray, address):
        task = ray.remote(num_cpus=1, max_retries=3)(_finish)
        running: dict[Any, Cell] = {}

        def submit(cell: Cell) -> None:
            dense = None if cell.from_scratch else store.files(cell.dense())
            running[task.remote(text, cell.key, dense, where, device)] = cell

        for cell in first:
            submit(cell)
        while running or waiting:
            for cell in [each for each in waiting if store.finished(each.dense())]:
                waiting.remove(cell)
                submit(cell)
            if not running:
                return  # what is left starts from networks that failed
            (ready, *_), _ = ray.wait(list(running))
            cell = running.pop(ready)
            error = _take(ray, ready, cell, store)
            now = estimate(cells, store)
            tell(f"[{now.done}/{now.cells}] {cell.label}: {error or 'done'}")


def _take(ray: Any, ready: Any, cell: Cell, store: Store) -> str | None:
    """Keep what a task brought; the reason where it failed."""
    try:
        store.put(cell, ray.get(ready))
    except Exception as error:  # of the task, or of its node
        reason = " ".join(str(getattr(error, "cause", None) or error).split())
        store.note_error(cell, reason)
        return f"failed: {reason[-300:]}"
    return None


def _finish(
    text: str, key: str, dense: Files | None, data_dir: str | None, device: str
) -> dict[str, bytes]:
    """On a node: one cell of a study, from its text alone."""
    where = None if data_dir is None else Path(data_dir)
    cell = _cells(text, where)[key]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), data_dir=where, device=device)
        if dense is not None:
            store.put(cell.dense(), dense)
        store.finish(cell)
        return store.files(cell)


@lru_cache(maxsize=2)
def _cells(text: str, data_dir: Path | None) -> dict[str, Cell]:
    cells = study_of(parse(text), "study", "the study").cells(data_dir).values()
    return {each.key: each for cell in cells for each in (cell.dense(), cell)}


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RegrowError(
            "a cluster needs Ray, which is not installed: pip install 'regrow[cluster]'."
        ) from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    if ray.is_initialized():  # by the caller, who ends it
        yield
        return
    _init(ray, address)
    try:
        yield
    finally:
        ray.shutdown()


def _init(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address != "local":
        _check_reachable(address)
        options["address"] = address
    try:
        ray.init(**options)
    except Exception as error:
        raise RegrowError(f"the cluster at {address} cannot be used: {error}.") from error


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes; a socket tells in seconds."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise RegrowError(f"--cluster {address} is no address; write ray://HOST:PORT or HOST:PORT.")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except OSError as error:
        raise RegrowError(
            f"the cluster at {address} cannot be reached: {error}; start one with "
            "`ray start --head`."
        ) from error
