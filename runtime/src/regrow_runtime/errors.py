"""The one error of the runtime."""

from __future__ import annotations


class RuntimeFileError(ValueError):
    """A file, a graph or an input that cannot be used: what, where, and what to do."""
