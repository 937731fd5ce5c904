"""The table of rules: operations by name, and what each of them ties together."""

from __future__ import annotations

from collections.abc import Callable

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
