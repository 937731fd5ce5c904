"""Where a run happened, for its record."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


@lru_cache(maxsize=1)
def processor() -> str:
    """The processor's own name, or the machine type where it does not tell."""
    name = _cpuinfo("model name")
    if name:
        return name
    if platform.system() == "Darwin":
        done = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def native_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; elsewhere bf16 only loses accuracy."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def native_int8() -> bool:
    """Whether the processor sums int8 products itself: AVX512-VNNI, AVX-VNNI or AMX."""
    known = torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()
    return bool(known or "avx_vnni" in _cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    """What Linux says of the first processor; "" on other systems."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def environment(device: str, precision: str) -> dict[str, Any]:
    """Software, hardware and settings as plain data."""
    try:
        own = version("regrow")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "regrow": own,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "precision": precision,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
