"""Tables of records: what `regrow compare` leaves of a study as one file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from regrow.core.errors import RegrowError

if TYPE_CHECKING:
    from regrow.bench.comparison.evidence import Row

TABLE = "records.csv"


def read_table(path: Path) -> list[Row]:
    """The rows of a study's table.

    Args:
        path: the table, or the study's directory.

    Raises:
        RegrowError: it cannot be read, or is something else.
    """
    from regrow.bench.comparison.evidence import rows_of

    file = path / TABLE if path.is_dir() else path
    try:
        return rows_of(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegrowError(f"{file} cannot be read: {error.strerror}; name a study.") from error
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise RegrowError(
            f"{file} is no table of a study's records: {error!r}; name a study, or its {TABLE}."
        ) from error
