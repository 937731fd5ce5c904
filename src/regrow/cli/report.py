"""`regrow report`: one page from records, and their curves for TensorBoard."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from regrow.cli.compare import STUDY, report_study, report_table, show, study_in
from regrow.cli.options import Open
from regrow.cli.output import say
from regrow.cli.runs import check_apart
from regrow.cli.tables import TABLE
from regrow.core.errors import RegrowError


def report_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="A study, its records.csv, a run, or a directory that holds several runs."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write; default report.html in SOURCE, or TABLE.html."),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="LOGS", help="Write every training's curves there, for TensorBoard."),
    ] = None,
    open_page: Open = False,
) -> None:
    """Write one self-contained page from the records of a study, or of one run or many."""
    from regrow.bench.report import find_runs

    if source.name == TABLE and (source.parent / STUDY).is_file():
        source = source.parent
    table, study = source.is_file(), (source / STUDY).is_file()
    if table and tensorboard is not None:
        raise RegrowError(f"{source} is a table, which holds no curves; name the study itself.")
    page = out or (source.with_suffix(".html") if table else source / "report.html")
    if page.name != "report.html":
        check_apart(page)
    runs = [] if table or study else find_runs(source)
    if table:
        report_table(source, page)
    elif study:
        report_study(source, page)
    else:
        write_runs(runs, page, f"regrow report {shlex.quote(str(source))}")
    say(f"report: {page}")
    if tensorboard is not None:
        from regrow.bench.tensorboard import run_curves, study_curves, write_curves

        curves = study_curves(*study_in(source)) if study else run_curves(runs)
        count = write_curves(curves, tensorboard)
        say(f"curves of {count} trainings: tensorboard --logdir {shlex.quote(str(tensorboard))}")
    if open_page:
        show(page)


def write_runs(runs: list[Path], page: Path, command: str) -> Path:
    """The page about some runs.

    Raises:
        RegrowError: a run cannot be read, or the page not be written.
    """
    from regrow.bench.report import write_report

    try:
        return write_report(runs, page, command=command)
    except OSError as error:
        raise RegrowError(f"{page} cannot be written: {error.strerror}.") from error
