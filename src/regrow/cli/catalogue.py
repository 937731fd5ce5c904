"""Everything that can be named, in one list."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from rich.table import Table as RichTable

from regrow.bench.arms import CONTROLS
from regrow.bench.tasks import TASKS
from regrow.core.errors import unknown
from regrow.core.step import Step
from regrow.core.table import Row, Table
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.criteria import CRITERIA
from regrow.parts.patterns import PATTERNS
from regrow.parts.penalty import PENALTIES
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.repair import REPAIRS
from regrow.parts.schedule import SCHEDULES
from regrow.parts.units import UNIT_CRITERIA
from regrow.recipes import RECIPES
from regrow.recipes.common import CUT, Cut, Scope

_ALL: tuple[Table[Any], ...] = (
    RECIPES,
    CRITERIA,
    SCHEDULES,
    RULES,
    VALUES,
    ALLOCATIONS,
    PATTERNS,
    UNIT_CRITERIA,
    PENALTIES,
    REPAIRS,
    CONTROLS,
    TASKS,
)


def catalogue(name: str | None = None) -> list[dict[str, str]]:
    """One row per named part: kind, name, summary, source; all of them, or those of one name.

    Raises:
        RegrowError: nothing has that name.
    """
    return [
        {"kind": kind, "name": row.name, "summary": row.summary, "source": row.source}
        for kind, row in _rows(name)
    ]


def tables() -> Iterator[RichTable]:
    """The same for people, a table per kind."""
    for table in _ALL:
        shown = RichTable(title=table.kind, title_justify="left", expand=False)
        shown.add_column("name", no_wrap=True, style="bold")
        shown.add_column("what it does", ratio=3)
        shown.add_column("source", ratio=1)
        for row in table:
            shown.add_row(row.name, row.summary, row.source)
        yield shown


def details(name: str) -> str:
    """Everything that is known of the parts of one name: documentation, options, defaults.

    Raises:
        RegrowError: nothing has that name.
    """
    pages = []
    for kind, row in _rows(name):
        lines = [f"{kind} {row.name}", "", inspect.getdoc(row.make) or ""]
        # A control is built from the recipe's parameters, a task is called without any.
        options = {} if kind in ("control", "task") else _options(row.make)
        if kind == "recipe":
            options.pop("seed", None)
        if options:
            lines += ["", "Options and defaults:"]
            lines += [f"    {option} = {default}" for option, default in options.items()]
        if kind == "recipe":
            taken = inspect.signature(row.make).parameters
            shared = (Scope,) if "criterion" in taken else (Cut, Scope)
            if any(each.kind is each.VAR_KEYWORD for each in taken.values()):
                lines += ["", *(f"{how.__name__}: {inspect.getdoc(how)}\n" for how in shared)]
            lines += ["", "The seed is the run's: --seed N."]
        pages.append("\n".join(lines))
    return "\n\n".join(pages)


def _rows(name: str | None) -> list[tuple[str, Row[Any]]]:
    every = [(table.kind, row) for table in _ALL for row in table]
    found = [(kind, row) for kind, row in every if name in (None, row.name)]
    if not found:
        raise unknown("name", name, [row.name for _, row in every])
    return found


def _options(make: Any) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            # What a recipe names itself it may have another default for.
            options = {**options, **{key: repr(value) for key, value in CUT.items()}, **options}
        elif parameter.default is parameter.empty:
            options[name] = "required"
        else:
            default = parameter.default
            options[name] = str(default) if isinstance(default, Step) else repr(default)
    return options
