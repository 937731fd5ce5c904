"""Compiling the forward pass of training, where that pays."""

from __future__ import annotations

import functools
import warnings
from typing import Any, Literal

import torch
from torch import nn

Compile = Literal["auto", "on", "off"]


def compiles(mode: Compile, device: torch.device) -> bool:
    """Whether training on a device is to be compiled.

    Args:
        mode: "on" is wherever a compiler is found; "auto" on CUDA devices only, since on a
            processor the first compilation takes twenty seconds, which short training never earns.
        device: that training runs on.
    """
    wanted = mode == "on" or (mode == "auto" and device.type == "cuda")
    return wanted and _works(str(device))


def compiled(model: nn.Module) -> Any:
    """The model behind a compiled forward pass; parameters and buffers stay the model's own.

    Shapes are static: whoever calls it with another batch size does so in `eager`.
    """
    return torch.compile(model, dynamic=False)


def eager() -> Any:
    """A context in which compiled networks run as they were written."""
    return torch.compiler.set_stance("force_eager")


@functools.cache
def _works(device: str) -> bool:
    """Try the whole chain of tools on something small; they are not part of PyTorch."""
    try:
        torch.compile(lambda x: (x + 1).relu())(torch.ones(8, device=device))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"networks are not compiled, since the compiler does not work here: {reason}",
            stacklevel=2,
        )
        return False
    return True
