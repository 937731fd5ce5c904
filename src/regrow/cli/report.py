"""`regrow report`: one page from records, and their curves for TensorBoard."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from regrow.cli.compare import STUDY, report_study, show, study_in
from regrow.cli.options import Open
from regrow.cli.output import say
from regrow.cli.runs import check_apart
from regrow.core.errors import RegrowError


def report_command(
    directory: Annotated[
        Path, typer.Argument(help="A study, a run, or a directory that holds several runs.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; default DIRECTORY/report.html.")
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="LOGS", help="Write every training's curves there, for TensorBoard."),
    ] = None,
    open_page: Open = False,
) -> None:
    """Write one self-contained page from the records of a study, or of one run or many."""
    from regrow.bench.report import find_runs

    page = out or directory / "report.html"
    if page.name != "report.html":
        check_apart(page)
    study = (directory / STUDY).is_file()
    runs = [] if study else find_runs(directory)
    if study:
        report_study(directory, page)
    else:
        write_runs(runs, page, f"regrow report {shlex.quote(str(directory))}")
    say(f"report: {page}")
    if tensorboard is not None:
        from regrow.bench.tensorboard import run_curves, study_curves, write_curves

        curves = study_curves(*study_in(directory)) if study else run_curves(runs)
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
