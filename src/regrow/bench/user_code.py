"""Exceptions of a user's own code, in one line."""

from __future__ import annotations

import traceback
from pathlib import Path


def line_of(error: BaseException) -> str:
    """The message, without line breaks."""
    return " ".join(str(error).split())


def told(error: BaseException) -> str:
    """An exception of the user's own code in one line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    name = Path(place.filename).name
    return f"{type(error).__name__}: {line_of(error)} ({name}, line {place.lineno})"
