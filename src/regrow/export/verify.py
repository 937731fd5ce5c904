"""`python -m regrow.export.verify PACKED SAFETENSORS`: are the two equal, to the bit?"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import load_file

from regrow.core.errors import RegrowError
from regrow.export.packed import differing, unpack


def main(packed: Path, weights: Path) -> None:
    """Compare a packed file with plain weights.

    Raises:
        RegrowError: a tensor differs.
    """
    fault = differing(load_file(weights), unpack(packed).state)
    if fault is not None:
        raise RegrowError(f"{packed} and {weights} differ in {fault}.")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except RegrowError as refused:
        sys.exit(str(refused))
