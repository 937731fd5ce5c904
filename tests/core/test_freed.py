"""Freed memory goes back to the system, where the C library can give it."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from unittest import mock

import pytest
import torch

from regrow.core.allocator import give_back


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has malloc_trim")
def test_what_lies_below_a_block_in_use() -> None:
    blocks = [torch.ones(8192) for _ in range(2048)]  # 64 MiB, each too small for a mapping
    last = blocks[-1]
    before = resident()
    del blocks
    give_back()
    assert before - resident() > 48 << 20
    assert bool(last.all())


def test_other_libraries_are_left_alone() -> None:
    for lacking in (mock.Mock(spec=[]), None):
        given = {"side_effect": OSError} if lacking is None else {"return_value": lacking}
        with mock.patch.object(ctypes, "CDLL", **given):
            give_back()
