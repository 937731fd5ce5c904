"""One self-contained page from the records of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from regrow.bench.report.compare import arrange
from regrow.bench.report.records import find_runs, read_run
from regrow.bench.report.view import MARKER_PATHS, section
from regrow.core.errors import RegrowError
from regrow.core.files import write_atomic

__all__ = ["find_runs", "write_report"]


def write_report(runs: Sequence[Path], out: Path, *, command: str) -> Path:
    """Write one HTML page about all runs; the same records give the same bytes.

    Runs are grouped by task, model, recipe, its parameters and the training, and within a group
    by sparsity; arms are compared with the one-way control of the same run, paired by seed.

    Args:
        runs: run directories, each with a record.json and, for the curves, a history.json.
        out: the page to write; missing directories are made.
        command: the command line that writes this page again, shown at its end.

    Returns:
        `out`.

    Raises:
        RegrowError: if there are no runs, one cannot be read or has another schema, a seed is
            there twice at one sparsity with other results, or `out` is a directory.
    """
    if not runs:
        raise RegrowError("no runs to report; give at least one run directory.")
    if out.is_dir():
        raise RegrowError(f"{str(out)!r} is a directory; name the page itself, as in report.html.")
    sections = [section(each, out) for each in arrange([read_run(Path(run)) for run in runs])]
    render(out, "page.html.j2", sections=sections, command=command)
    return out


def render(out: Path, template: str, **values: Any) -> None:
    """Write a page from one of the package's templates, styles and all."""
    environment = Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (files(__name__) / "page.css").read_text(encoding="utf-8")
    page = environment.get_template(template).render(
        markers=MARKER_PATHS, style=Markup(style), **values
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, (page.rstrip() + "\n").encode())
