"""The one exception that regrow raises for bad input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RegrowError(ValueError):
    """Something the caller can put right: the message says what, where and how.

    The command line turns it into one readable line and exit code 2.
    """


def unknown(kind: str, name: object, known: Iterable[str]) -> RegrowError:
    """An error for a name that is not in a table, with the nearest one that is.

    Args:
        kind: what the name should name, as in "criterion".
        name: what was given.
        known: the names that exist.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return RegrowError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")
