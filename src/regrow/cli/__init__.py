"""The `regrow` command."""

from regrow.cli.main import main

__all__ = ["main"]
