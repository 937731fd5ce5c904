"""TOML files that people write: read with errors they can act on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from regrow.core.errors import RegrowError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

parse = tomllib.loads
ParseError = tomllib.TOMLDecodeError


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """A file's content.

    Args:
        path: the file.
        kind: what it should be, as in "recipe".

    Raises:
        RegrowError: there is no such file, or it cannot be read as TOML.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RegrowError(f"there is no {kind} file {str(path)!r}.") from error
    except RecursionError as error:
        raise RegrowError(f"{path} is nested too deep to be read as TOML.") from error
    except (OSError, UnicodeDecodeError, ParseError) as error:
        raise RegrowError(f"{path} cannot be read as TOML: {error}.") from error


def check_schema(data: dict[str, Any], known: int, where: str) -> None:
    """Refuse content of another version; without one it is the present one.

    Raises:
        RegrowError: it has another.
    """
    if data.get("schema", known) != known:
        raise RegrowError(
            f"{where} has schema {data['schema']!r}, this regrow reads {known}; use the regrow "
            "that wrote it."
        )
