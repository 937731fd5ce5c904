"""What does not go together in one plan, and why: a table in place of rules here and there."""

from __future__ import annotations

from typing import Any

from regrow.core.errors import RegrowError

# A field of a plan, the fields that it excludes, and why.
_APART = (
    (
        "reparam",
        ("regrowth", "memory", "penalty", "repair", "rewind"),
        "with a reparametrisation nothing is cut",
    ),
    (
        "penalty",
        ("regrowth", "memory", "repair", "rewind"),
        "a penalty drives weights to zero, so there is nothing to return, go back to or make up "
        "for",
    ),
    (
        "repair",
        ("regrowth", "memory", "rewind"),
        "a repair moves what stays for what is cut for good",
    ),
    (
        "rewind",
        ("regrowth", "memory"),
        "rewind gives all weights their first values again, so nothing can be remembered or return "
        "with others",
    ),
    ("rounds", ("regrowth", "memory"), "rounds are steps of a cut after which nothing returns"),
)


def check_apart(plan: Any) -> None:
    """Refuse a plan, of weights or of units, that asks for two things of which one is idle.

    Raises:
        RegrowError: it does; the message says why, and what to leave out.
    """
    for name, others, why in _APART:
        clash = [other for other in others if _asked(plan, other)]
        if clash and _asked(plan, name):
            raise RegrowError(f"{why}; leave out {name}, or {' and '.join(clash)}.")


def _asked(plan: Any, name: str) -> bool:
    value = getattr(plan, name, None)
    if name == "rounds":
        return value is not None and value > 1
    return value is not None and value is not False
