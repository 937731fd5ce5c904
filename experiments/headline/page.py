"""Tables and plots of docs/bidirectional.md, from the committed records."""

from __future__ import annotations

from typing import Any


def write_small(record: dict[str, Any]) -> None:
    """The table of one of the small networks."""
