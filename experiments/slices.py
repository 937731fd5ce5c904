"""A study that takes longer than a sitting: its finished cells as one file, and back.

    python experiments/slices.py restore cifar10_small   # before going on
    REGROW_DATA=FOLDER regrow compare experiments/studies/cifar10_small.toml \\
        --out runs/compare/cifar10_small --workers 2     # stop it whenever you like
    python experiments/slices.py keep cifar10_small      # and commit experiments/records/cells

The file holds each finished cell's record and, of the dense networks that others start from, the
weights; so a study goes on from it on any machine, and repeats nothing.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEN = (1980, 1, 1, 0, 0, 0)  # equal cells make equal files


def kept(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of what is kept of finished cells, in order."""
    for record in sorted(folder.glob("*/result.json")):
        text = record.read_text()
        # The record last: where it is, a cell is finished.
        if json.loads(text)["facts"]["program"] is None:
            yield f"{record.parent.name}/final", (record.parent / "final").read_bytes()
        yield f"{record.parent.name}/result.json", text.encode()


def keep(study: str) -> None:
    archive = ROOT / "experiments" / "records" / "cells" / f"{study}.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as file:
        count = 0
        for name, data in kept(ROOT / "runs" / "compare" / study / "cells"):
            file.writestr(zipfile.ZipInfo(name, WHEN), data, zipfile.ZIP_LZMA)
            count += name.endswith(".json")
    print(f"{count} cells in {archive.relative_to(ROOT)}, {archive.stat().st_size:,} bytes")


def restore(study: str) -> None:
    archive = ROOT / "experiments" / "records" / "cells" / f"{study}.zip"
    folder = ROOT / "runs" / "compare" / study / "cells"
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            path = folder / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read(name))
    print(f"{len(list(folder.glob('*/result.json')))} cells are finished in {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("keep", "restore"))
    parser.add_argument("study", help="a name under experiments/studies")
    options = parser.parse_args()
    {"keep": keep, "restore": restore}[options.what](options.study)


if __name__ == "__main__":
    main()
