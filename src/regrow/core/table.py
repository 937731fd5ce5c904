"""Tables of named parts, so that a recipe file can say "lamp" and a list can say what it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, time
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from regrow.core.errors import RegrowError, unknown
from regrow.core.step import Step

T = TypeVar("T")


@dataclass(frozen=True)
class Row(Generic[T]):
    """One named part.

    Attributes:
        name: what recipes and the command line call it.
        make: the class or function that builds it from keyword arguments.
        source: the paper, with year and equation or section, or "-" for folklore.
    """

    name: str
    make: Callable[..., T]
    source: str

    @property
    def summary(self) -> str:
        """The first line of the docstring of `make`."""
        return (inspect.getdoc(self.make) or "").split("\n", 1)[0].rstrip(".")


class Table(Generic[T]):
    """An ordered set of rows, looked up by name; misses name the nearest row."""

    def __init__(self, kind: str, *rows: Row[T]) -> None:
        self.kind = kind
        self._rows = {row.name: row for row in rows}

    def __iter__(self) -> Iterator[Row[T]]:
        return iter(self._rows.values())

    def __getitem__(self, name: str) -> Row[T]:
        if name not in self._rows:
            raise unknown(self.kind, name, self._rows)
        return self._rows[name]

    def build(self, spec: Any) -> T:
        """A part from its specification.

        Args:
            spec: a name, a mapping with a "name" and the part's own keywords, or a part that
                has been built already, which is returned as it is.

        Raises:
            RegrowError: it is none of these, the name or a keyword is unknown, or a value is
                refused by the part.
        """
        if isinstance(spec, type):
            raise RegrowError(f"{spec.__name__} is a class; give a {self.kind}, {spec.__name__}().")
        if isinstance(spec, str):
            spec = {"name": spec}
        if spec is None or isinstance(spec, (int, float, list, tuple, date, time)):
            raise RegrowError(
                f"a {self.kind} is a name, a table with a 'name' or a part; got {spec!r}."
            )
        if not isinstance(spec, Mapping):
            return spec
        options = dict(spec)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise RegrowError(f"a {self.kind} given as a table needs a 'name'; got {dict(spec)!r}.")
        make = self[name].make
        known = _keywords(make)
        for key in options:
            if key not in known:
                raise unknown(f"option of {self.kind} {name!r}:", key, known)
        if is_dataclass(make):
            types = {f.name: f.type for f in fields(make)}
            options = {k: _typed(v, types.get(k)) for k, v in options.items()}
        try:
            return make(**options)
        except TypeError as error:
            raise RegrowError(f"{self.kind} {name!r}: {error}.") from error

    def spec(self, part: object) -> dict[str, Any]:
        """The inverse of `build` for dataclass parts: name and field values, plain data only."""
        for row in self:
            if row.make is type(part) and is_dataclass(part):
                values = {f.name: getattr(part, f.name) for f in fields(part)}
                return {"name": row.name, **{k: _plain(v) for k, v in values.items()}}
        raise RegrowError(
            f"{type(part).__name__} is in no row of the {self.kind} table, so it cannot be "
            "written to a file; add a row for it."
        )


def _keywords(make: Callable[..., Any]) -> set[str]:
    # A catch-all `**cut: Unpack[Cut]` stands for the keys of the typed dictionary.
    known = set()
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            known |= set(get_args(get_type_hints(make)[name])[0].__annotations__)
        else:
            known.add(name)
    return known


def _typed(value: Any, annotation: Any = None) -> Any:
    # Files have neither steps nor tuples.
    if annotation in ("Step", Step):
        return Step.of(value)
    return tuple(_typed(v) for v in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Step):
        return str(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
