"""Lines for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape


def say(line: str) -> None:
    """Print a line as it is, however long."""
    Console(emoji=False).print(escape(line), highlight=False, soft_wrap=True)
