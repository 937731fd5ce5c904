"""`regrow recommend`: what the records of studies say about a task, a network and a sparsity."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from regrow.cli.options import Json
from regrow.cli.output import say
from regrow.cli.tables import read_table
from regrow.core.errors import RegrowError, unknown


def recommend_command(
    sparsity: Annotated[float, typer.Option(metavar="S", help="To be reached, in [0, 1).")],
    records: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A study, or its records.csv; repeatable. Else our own studies.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str, typer.Option(metavar="TASK", help="As in `regrow run`; its name is looked up.")
    ] = "digits",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The network.")] = None,
    budget: Annotated[
        str, typer.Option(metavar="N", help="Epochs after the dense network, as 40 or 40epochs.")
    ] = "20epochs",
    pattern: Annotated[
        str, typer.Option(metavar="NAME", help="element, or unit for channels.")
    ] = "element",
    as_json: Json = False,
) -> None:
    """Say which strategy to use at a sparsity, how sure that is, and what is not known.

    regrow recommend --task cifar10 --model resnet20 --sparsity 0.95 --budget 20epochs
    """
    from regrow.bench.comparison.recommend import OURS, recommend
    from regrow.bench.tasks import TASKS, find_task

    tables = [read_table(path) for path in records or sorted(OURS.glob("*.csv"))]
    known = {row.place.task for rows in tables for row in rows} | {row.name for row in TASKS}
    if ":" in task:
        task = find_task(task).name
    elif task not in known:
        raise unknown("task", task, known)
    found = recommend(
        tables, sparsity=sparsity, epochs=_epochs(budget), task=task, model=model, pattern=pattern
    )
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=1) + "\n")
    else:
        say(found.text())


def _epochs(words: str) -> int:
    match = re.fullmatch(r"(\d+) ?(?:epochs?|ep)?", words)
    if match is None or int(match[1]) < 1:
        raise RegrowError(f"--budget {words} is no count of epochs, as in 40epochs.")
    return int(match[1])
