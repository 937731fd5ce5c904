"""Freed memory, back to the system."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return to the system what the C allocator keeps of freed memory, where it is glibc's.

    It keeps up to 64 MB, and whatever lies below a block that is in use: for a small network more
    than all of its parameters.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return
    trim(0)
