"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where data sets lie; else $REGROW_DATA, else ./data.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")]
Open = Annotated[bool, typer.Option("--open", help="Show the page in your browser.")]
