"""Multiply-adds, memory and limits of this process. Memory needs Linux."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from network import Example, call
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class TooLong(Exception):
    """A case passed its time limit."""


@torch.no_grad()
def outputs_and_macs(model: nn.Module, example: Example) -> tuple[list[Tensor], int]:
    """The outputs, and half the floating-point operations of products and convolutions.

    They are counted apart, since PyTorch's attention in one operation would not be.
    """
    outputs = call(model, example)
    fused = torch.backends.mha.get_fastpath_enabled()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.backends.mha.set_fastpath_enabled(False)
    model.requires_grad_(False)  # or the counter would watch gradients of parameters passed on
    try:
        with FlopCounterMode(display=False) as counter:
            call(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for parameter in trained:
            parameter.requires_grad_(True)
    return outputs, counter.get_total_flops() // 2


class Peak:
    """How far the resident size rose above what it was; lifts a limit of memory at its end."""

    growth = 0

    def __enter__(self) -> Peak:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        limit_memory(None)  # a process at its limit could not read the file
        self.growth = max(0, _status("VmHWM") - self._before)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the system does not tell {key}")


def limit_memory(memory: int | None) -> None:
    """Allocations beyond it fail from here on, in child processes too; None lifts the limit."""
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most if memory is None else memory, most))


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """Raises TooLong after that much processor time, which a busy machine does not change."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TooLong(f"more than {seconds:g} s")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
