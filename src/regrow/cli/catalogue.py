"""Everything that can be named, in one list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table as RichTable

from regrow.bench.arms import CONTROLS
from regrow.bench.tasks import TASKS
from regrow.core.table import Table
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.criteria import CRITERIA
from regrow.parts.patterns import PATTERNS
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.schedule import SCHEDULES
from regrow.recipes import RECIPES

_ALL: tuple[Table[Any], ...] = (
    RECIPES,
    CRITERIA,
    SCHEDULES,
    RULES,
    VALUES,
    ALLOCATIONS,
    PATTERNS,
    CONTROLS,
    TASKS,
)


def catalogue() -> list[dict[str, str]]:
    """One row per named part: kind, name, summary, source."""
    return [
        {"kind": table.kind, "name": row.name, "summary": row.summary, "source": row.source}
        for table in _ALL
        for row in table
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
