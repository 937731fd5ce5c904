"""What every export tells of itself, and the check of its target before the work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from regrow.core.errors import RegrowError
from regrow.core.files import require_space

# Of none of these formats can a reader skip zeros that follow no pattern.
STORES_ZEROS = (
    "stores zeros in full, so pruning makes this file no smaller; `regrow pack` writes the small "
    "form"
)


def about_zeros(format: str, nonzeros: int, weights: int) -> str:
    """What a format does with the zeros of a network, if it has any."""
    return f"{format} {STORES_ZEROS}" if nonzeros < weights else f"{format}; there are no zeros"


@dataclass(frozen=True)
class Exported:
    """A file in a format of others, written and checked; `str()` is a few lines about it.

    Attributes:
        format: "onnx", "safetensors" or "torch".
        bytes: of the file.
        dense_fp32_bytes: of all parameters in single precision, tied ones once.
        nonzeros, weights: of the convolution and linear weights, tied ones once, those that are
            not zero, and all.
        sparsity: the fraction of them that is removed, by their masks: a kept weight may be zero.
        note: what to know of the file.
        max_abs_diff: for ONNX, the largest difference between an output of the file and of the
            network.
    """

    format: str
    bytes: int
    dense_fp32_bytes: int
    nonzeros: int
    weights: int
    sparsity: float
    note: str
    max_abs_diff: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for machines; `max_abs_diff` only where there is one."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        lines = [
            f"{self.format}: {self.bytes:,} bytes; {self.dense_fp32_bytes:,} as dense fp32",
            f"sparsity: {self.sparsity:.4f}; {self.nonzeros:,} of {self.weights:,} convolution and "
            "linear weights are not zero",
        ]
        if self.max_abs_diff is not None:
            lines.append(f"largest difference from torch: {self.max_abs_diff:.2g}")
        return "\n".join([*lines, f"note: {self.note}"])


def check_target(path: str | os.PathLike[str], needed: int) -> None:
    """Refuse a target that cannot be written, before the work that leads to it.

    Args:
        path: the file to write.
        needed: bytes that it will take, roughly.

    Raises:
        RegrowError: it is a folder, its own folder does not exist, or the disk is too full.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise RegrowError(f"{os.fspath(path)} is a folder; give the name of a file.")
    if not target.parent.is_dir():
        raise RegrowError(
            f"{os.fspath(path)} cannot be written: there is no folder {target.parent}"
            "; create it first."
        )
    require_space(target.parent, needed)


def check_plain(state: Mapping[str, Any]) -> None:
    """Refuse a state dict that holds something without plain values.

    Raises:
        RegrowError: an entry is no tensor, has no values yet, or is not strided; it is named.
    """
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise RegrowError(f"{name} is a {type(tensor).__name__}; only tensors can be exported.")
        if is_lazy(tensor) or tensor.is_meta:
            raise RegrowError(
                f"{name} has no values yet; run a batch, or move it off 'meta', first."
            )
        kind = type(tensor.detach())
        plain = kind is Tensor and tensor.layout == torch.strided and not tensor.is_quantized
        if not plain or tensor.dtype == torch.complex128:
            raise RegrowError(
                f"{name} is a {tensor.layout} {kind.__name__} of {tensor.dtype}; only plain "
                "strided tensors can be exported. Convert it first."
            )
