"""The table of rules: operations by name, and what each of them ties together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

from regrow.model.coupling.tracer import Rule

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Put a function into the table under the names of ATen operations."""

    def add(function: Rule) -> Rule:
        for name in names:
            assert f"aten.{name}" not in RULES, name
            RULES[f"aten.{name}"] = function
        return function

    return add


def described() -> Iterator[tuple[list[str], str]]:
    """Each rule with the operations that it serves, in the order of the table."""
    names: dict[Rule, list[str]] = {}
    for name, function in RULES.items():
        names.setdefault(function, []).append(name.removeprefix("aten."))
    for function, served in names.items():
        yield served, " ".join((inspect.getdoc(function) or "").split())
