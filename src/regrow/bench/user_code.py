"""Exceptions of a user's own code, in one line."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regrow.core.errors import RegrowError


def line_of(error: BaseException) -> str:
    """The message, without line breaks."""
    return " ".join(str(error).split())


def told(error: BaseException) -> str:
    """An exception of the user's own code in one line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    name = Path(place.filename).name
    return f"{type(error).__name__}: {line_of(error)} ({name}, line {place.lineno})"


def calling(what: str, call: Callable[[], Any]) -> Any:
    """What a user's own code gives.

    Raises:
        RegrowError: it raised, told in one line; errors of regrow's own are left as they are.
    """
    try:
        return call()
    except RegrowError:
        raise
    except (Exception, SystemExit) as error:
        raise RegrowError(f"{what} raised {told(error)}.") from error
