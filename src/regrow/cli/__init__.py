"""The `regrow` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say what is missing where only the library is installed."""
    try:
        _run()
    except KeyboardInterrupt:  # While modules are imported; a command tells of it itself.
        sys.stderr.write("error: stopped.\n")
        sys.exit(130)


def _run() -> None:
    try:
        from regrow.cli.app import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("regrow"):
            raise
        sys.stderr.write(
            f"error: the command line needs {error.name!r}, which is not installed; install it "
            "with: pip install 'regrow[cli]'\n"
        )
        sys.exit(2)
    run()


__all__ = ["main"]
