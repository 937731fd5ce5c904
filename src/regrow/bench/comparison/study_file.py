"""The file of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from regrow.bench.comparison.grid import Grid, Study
from regrow.bench.comparison.strategies import DENSE, GRADUAL, RANDOM, SMALL, Strategy, find
from regrow.bench.toml import check_schema, read_toml
from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError, unknown

SCHEMA = 1
_TAKEN = (RANDOM.name, GRADUAL.name, SMALL, DENSE)
_TOP = ("schema", "name", "budget", "grid", "strategies")


def read(path: Path) -> Study:
    """A study from its TOML file.

    Raises:
        RegrowError: the file cannot be read; a key is not known (with the nearest one), or a value
            is not of its kind.
    """
    return study_of(read_toml(path, "study"), path.stem, str(path))


def study_of(data: dict[str, Any], name: str, where: str) -> Study:
    """A study from plain data; see `read`."""
    check_schema(data, SCHEMA, where)
    for key in data:
        if key not in _TOP:
            raise unknown(f"key in {where}:", key, _TOP)
    budget = data.get("budget", "equal")
    if budget not in ("equal", "unequal"):
        raise RegrowError(f"{where}: budget={budget!r} is neither 'equal' nor 'unequal'.")
    tables = data.get("grid")
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise RegrowError(f"{where} has no grid; begin one with a line [[grid]].")
    own = {}
    for key, table in _table(where, "strategies", data.get("strategies", {})).items():
        if key in _TAKEN or ", " in key:
            raise RegrowError(
                f"{where}: a strategy cannot be named {key!r}, which means another arm already; "
                "choose another name, without a comma."
            )
        own[key] = Strategy.of(key, _table(where, f"strategies.{key}", table))
    return Study(
        str(data.get("name", name)),
        tuple(_grid(table, own, where) for table in tables),
        own,
        budget == "equal",
    )


def _grid(table: Mapping[str, Any], own: Mapping[str, Strategy], where: str) -> Grid:
    known = [each.name for each in fields(Grid)]
    for key in table:
        if key not in known:
            raise unknown(f"key of a grid in {where}:", key, known)
    for key in ("task", "strategies", "sparsities"):
        if not table.get(key):
            raise RegrowError(f"{where}: a grid needs {key}; docs/compare.md tells of its keys.")
    values: dict[str, Any] = dict(table)
    for key, kind in (
        ("strategies", str),
        ("models", str),
        ("criteria", str),
        ("sparsities", float),
        ("trials", float),
    ):
        if key in values:
            values[key] = _list(where, key, values[key], kind)
    if not isinstance(values["task"], str):
        raise RegrowError(f"{where}: task={values['task']!r} must be one name.")
    pattern = values.get("pattern", "element")
    if not isinstance(pattern, str) and "name" not in _table(where, "pattern", pattern):
        raise RegrowError(f"{where}: pattern={pattern!r} must have a name, as {{ name = 'unit' }}.")
    _table(where, "training", values.get("training", {}))
    for key in ("seeds", "epochs"):
        if key in values and (type(values[key]) is not int or values[key] < 1):
            raise RegrowError(
                f"{where}: {key}={values[key]!r} must be a whole number of at least 1."
            )
    grid = Grid(**values)
    for sparsity in grid.sparsities:
        check_sparsity(sparsity)
    if min(grid.trials) <= 0:
        raise RegrowError(f"{where}: trials must be factors of the learning rate, above 0.")
    for name in grid.strategies:
        find(name, own)
    return grid


def _table(where: str, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RegrowError(f"{where}: {key}={value!r} must be a table of keys and values.")
    return value


def _list(where: str, key: str, value: Any, kind: type) -> tuple[Any, ...]:
    given: Sequence[Any] = value if isinstance(value, list) else [value]
    kinds = (int, float) if kind is float else (kind,)
    if not given or not all(type(each) in kinds for each in given):
        what = "numbers" if kind is float else "names"
        raise RegrowError(f"{where}: {key}={value!r} must be a list of {what}.")
    return tuple(dict.fromkeys(kind(each) for each in given))
