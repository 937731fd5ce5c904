"""`regrow compare`: every arm of a study, and the page about it."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
import webbrowser
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrow.cli.interrupt import Interrupt
from regrow.cli.options import DataDir, Device, Open
from regrow.cli.output import say
from regrow.cli.tables import TABLE, read_table
from regrow.core.errors import RegrowError

if TYPE_CHECKING:
    from regrow.bench.cells import Cell
    from regrow.bench.comparison.grid import Place, Study
    from regrow.bench.store import Store

STUDY = "study.toml"


def compare_command(
    study: Annotated[Path, typer.Argument(help="A study file (docs/compare.md).")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where cells, records and the page go.")],
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes, each of one thread.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what is to be done.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train on a Ray cluster: ray://HOST:PORT, HOST:PORT, or local.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="M", help="Pause after so many minutes; call again to go on."),
    ] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    open_page: Open = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    """Compare strategies at equal budgets, and write a page about what was found.

    Finished cells are kept in DIR/cells and never trained twice; a study that was stopped goes on
    where it was.

    regrow compare study.toml --out studies/first --workers 2
    """
    from regrow.bench.arm import check_device
    from regrow.bench.comparison.cluster import run_on_cluster
    from regrow.bench.comparison.study_file import read
    from regrow.bench.store import Store
    from regrow.bench.study import estimate, measured, run_cells, serve

    if minutes is not None and not minutes > 0:
        raise RegrowError(f"--minutes is a time from now on, as in 30; got {minutes:g}.")
    asked = read(study)
    cells = asked.cells(data_dir)
    words = ["regrow", "compare", str(study), "--out", str(out)]
    stop_at = None if minutes is None else time.monotonic() + 60 * minutes
    interrupt = Interrupt()
    store = Store(
        out,
        data_dir=data_dir,
        device=device,
        notify=interrupt.check,
        command=shlex.join(words),
        stop_at=stop_at,
    )
    every = list(cells.values())
    if worker:
        serve(every, store, workers=workers, tell=say)
        return
    check_device(device)
    if (out / "recipe.toml").exists():
        raise RegrowError(f"{out} holds a run; choose another --out.")
    if cluster is None and not dry_run:
        asked.check_data(data_dir)
    now, rates = estimate(every, store), None
    if now.minutes is None and cluster is None:
        with interrupt:
            rates = measured(every, store)
            interrupt.check()
        now = estimate(every, store, rates)
    say(now.text(workers))
    if dry_run:
        _list(every, store)
        return
    _keep(study, out)
    if rates:
        store.note_rates(rates)
    more = [] if data_dir is None else ["--data-dir", str(data_dir)]
    more += [] if minutes is None else ["--minutes", str(minutes)]
    if cluster is not None:
        text = study.read_text(encoding="utf-8")
        finish = partial(run_on_cluster, text, every, store, cluster, data_dir=data_dir)
        run: Callable[[], object] = partial(finish, device=device, tell=say)
    else:
        start = [sys.executable, "-m", *words, "--workers", str(workers), "--device", device]
        command = [*start, *more, "--worker"]
        run = partial(run_cells, every, store, workers=workers, command=command, tell=say)
    page, failed = _finish(run, asked, cells, store, interrupt)
    if open_page and page is not None:
        show(page)
    if failed:
        raise typer.Exit(1)


def _list(cells: list[Cell], store: Store) -> None:
    """Every cell in a line, and the dense networks that several start from."""
    from regrow.bench.study import with_dense

    every = with_dense(cells)
    starts = Counter(cell.dense().key for cell in every if not cell.from_scratch)
    for cell in every:
        done = "done" if store.finished(cell) else "to do"
        shared = f", from which {starts[cell.key]} start" if cell.key in starts else ""
        say(f"{cell.key} {done:>6} {cell.epochs:>4} epochs  {cell.label}{shared}")


def _finish(
    run: Callable[[], object],
    asked: Study,
    cells: Mapping[Place, Cell],
    store: Store,
    interrupt: Interrupt,
) -> tuple[Path | None, int]:
    """Run the cells, write the page whatever happens, and tell what failed: page and count."""
    from regrow.bench.study import estimate

    every = list(cells.values())
    try:
        with interrupt:
            run()
    except KeyboardInterrupt:
        say("stopped; the same command goes on where it was.")
        raise
    finally:
        page = write_page(asked, cells, store, store.directory / "report.html")
        if page is not None:
            say(f"report: {page}")
    failed = [cell for cell in every if store.error(cell) or store.error(cell.dense())]
    for cell in failed:
        say(f"failed: {cell.label}: {store.error(cell) or store.error(cell.dense())}")
    now = estimate(every, store)
    say(now.text())
    return page, now.failed


def write_page(study: Study, cells: Mapping[Place, Cell], store: Store, page: Path) -> Path | None:
    """The page and the table of records of a study, as far as it is finished; None before that."""
    from regrow.bench.comparison.evidence import compare, csv_of, gather
    from regrow.bench.comparison.page import write_study
    from regrow.core.files import write_atomic

    rows = gather(cells, store)
    if not rows:
        return None
    write_atomic(store.directory / TABLE, csv_of(rows).encode())
    missing = sum(1 for cell in cells.values() if not store.finished(cell))
    return write_study(
        study.name,
        compare(rows),
        page,
        equal=study.equal,
        missing=missing,
        cells="cells",
        command=f"regrow report {shlex.quote(str(store.directory))}",
    )


def report_study(directory: Path, page: Path) -> Path:
    """The page of a study that lies in a directory.

    Raises:
        RegrowError: nothing of it is finished.
    """
    from regrow.bench.comparison.study_file import read

    written = write_page(read(directory / STUDY), *study_in(directory), page)
    if written is None:
        raise RegrowError(f"no cell of the study in {directory} is finished; run it first.")
    return written


def report_table(table: Path, page: Path) -> Path:
    """The page of a study of which only the table of records is here.

    Raises:
        RegrowError: it cannot be read, or holds no cell.
    """
    from regrow.bench.comparison.evidence import compare
    from regrow.bench.comparison.page import write_study

    comparisons = [each for each in compare(read_table(table)) if each.arms]
    if not comparisons:
        raise RegrowError(f"{table} holds no cell of a study.")
    name = (table.resolve().parent if table.name == TABLE else table).stem
    command = shlex.join(["regrow", "report", str(table), "--out", str(page)])
    return write_study(name, comparisons, page, equal=None, missing=0, cells=None, command=command)


def study_in(directory: Path) -> tuple[Mapping[Place, Cell], Store]:
    """The cells of the study that lies in a directory, and their store."""
    from regrow.bench.comparison.study_file import read
    from regrow.bench.store import Store

    return read(directory / STUDY).cells(), Store(directory)


def _keep(study: Path, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if study.resolve() != (out / STUDY).resolve():
            shutil.copyfile(study, out / STUDY)
    except OSError as error:
        raise RegrowError(f"{out} cannot be written: {error.strerror}.") from error


def show(page: Path) -> None:
    """Open a page in the user's browser, or say that there is none."""
    if not webbrowser.open(page.resolve().as_uri()):
        say(f"no browser was found; open {page} yourself.")
