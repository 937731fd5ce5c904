"""A model as a deploy file: compact, checked against torch, and run without it."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from regrow.core.errors import RegrowError, unknown
from regrow.core.files import write_atomic
from regrow.core.names import unwrap
from regrow.export.capture import capture
from regrow.export.exported import check_plain, check_target
from regrow.export.fold_norms import fold_norms
from regrow.export.quantise import input_energy, levels_of, quantise
from regrow.export.runtime import TORCH, restored, runtime
from regrow.export.settle import settle
from regrow.model.inspection import inspect
from regrow.model.inventory import inventory

Values = Literal["fp32", "fp16", "bf16", "int8"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in TORCH.items()}


@dataclass(frozen=True)
class Packing:
    """A deploy file, written and checked.

    Attributes:
        bytes: of the file, graph included.
        dense_fp32_bytes: of all parameters in single precision, tied ones once.
        zstd_bytes: of the same weights, zeros included and in the same precision, by zstd -19; None
            where the package zstandard is missing, or nobody asked.
        nonzeros, weights: of the convolution and linear weights: those that are not zero, and all.
        position_bits: that say where the stored weights lie.
        position_bits_bound: log2 C(n, k), summed over the layers: what positions cost that follow
            no pattern.
        max_abs_diff: the largest difference between an output of the runtime and of torch with the
            same (rounded) weights.
        layers: of each convolution and linear weight: name, weights, kept, position_bits,
            position_bits_bound, value_bits.
    """

    bytes: int
    dense_fp32_bytes: int
    zstd_bytes: int | None
    nonzeros: int
    weights: int
    position_bits: int
    position_bits_bound: float
    max_abs_diff: float
    layers: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for machines."""
        return asdict(self)


def pack(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Tensor | Sequence[Tensor],
    *,
    values: Values = "fp32",
    masks: Mapping[str, Tensor] | None = None,
    calibration: Sequence[Tensor] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
    zstd: bool = True,
) -> Packing:
    """Write a model as a compact file that `regrow_runtime.load` runs without torch.

    Convolution and linear weights are stored without their zeros, in the precision asked for;
    everything else (biases, norms) to the bit. Before the file takes its name the runtime loads it
    and computes the example, and must agree with torch.

    Args:
        model: may be compiled or data-parallel, and on any device; it is left as it is.
        path: the file; a previous one stays intact unless the new one is whole and verified.
        example: real inputs, samples on axis 0: what `forward` takes, one tensor or several.
        values: "fp32" is to the bit, and stores weights of few magnitudes, as a quantiser leaves
            them, as whole numbers and a table of these; "fp16" and "bf16" round; "int8" has one
            scale per output channel, chosen for the least error, and batch norms are folded into
            the scales, so that such a file cannot be loaded into the model again.
        masks: bool keep masks by weight name, such as `Pruning.masks`; a weight without one counts
            as kept where it is not zero.
        calibration: for "int8": batches of inputs, so that errors count by how large the inputs of
            a weight are; without them all weights of a channel count alike.
        metadata: notes of your own, plain JSON values.
        tolerance: how far an output may be from torch's, as a fraction of its largest value.
        zstd: also compress with zstd -19, for comparison; large networks take it many seconds.

    Raises:
        RegrowError: the runtime is not installed; the model has an operator that it lacks; weights
            that the precision cannot hold; the target cannot be written; the outputs disagree.
    """
    native = runtime()
    if values not in ("fp32", "fp16", "bf16", "int8"):
        raise unknown("values", values, ("fp32", "fp16", "bf16", "int8"))
    inner = copy.deepcopy(unwrap(model)).cpu().train(False)
    inputs = _inputs(example)
    with torch.no_grad():
        settle(inner, inputs)
    state = inner.state_dict()
    check_plain(state)
    counts = inspect(inner, masks=masks)
    check_target(path, 4 * counts.parameters)
    graph = capture(inner, inputs)
    energy = None if calibration is None else input_energy(inner, calibration)
    prunable = {entry.name for entry in inventory(inner)}
    if strangers := (masks or {}).keys() - state.keys():
        raise unknown("mask of tensor", min(strangers), state)
    arrays: dict[str, Any] = {}
    stored: dict[Any, Any] = {}  # of tied tensors, which are rounded once
    with torch.no_grad():
        for name, tensor in state.items():
            same = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if tensor.numel() and same in stored:
                arrays[name] = stored[same]
                continue
            keep = None if masks is None or name not in masks else masks[name].cpu().numpy()
            if name in prunable and tensor.is_floating_point():
                tensor += 0.0  # A weight times zero is often -0.0, whose bits are not zero.
            if name not in prunable:
                arrays[name] = _exact(native, tensor, keep)
            elif values == "int8":
                weights = None if energy is None else energy.get(name)
                arrays[name] = _quantised(native, tensor, keep, weights)
            elif values == "fp32" and (found := levels_of(tensor)) is not None:
                arrays[name] = _levelled(native, *found, keep)
            else:
                arrays[name] = _rounded(native, name, tensor, keep, _DTYPES[values])
            tensor.copy_(restored(arrays[name]))
            stored[same] = arrays[name]
        expected = _outputs(inner(*inputs))
    notes = {**(metadata or {}), "inspection": counts.to_dict(), "values": values}
    packed = arrays
    if values == "int8":
        packed, graph = fold_norms(native, arrays, graph)
    contents = native.file.Contents(packed, graph, notes)
    try:
        chunks = native.file.encode(contents)
    except ValueError as error:  # the runtime's own
        raise RegrowError(f"{os.fspath(path)} was not written: {error}") from error
    far = 0.0

    def check(written: Path) -> None:
        nonlocal far
        far = _difference(native, written, inputs, expected, tolerance, path)

    size = write_atomic(path, chunks, check=check)
    layers = tuple(each for each in native.file.sizes(contents) if each["name"] in prunable)
    return Packing(
        size,
        4 * counts.parameters,
        _zstd(arrays) if zstd else None,
        sum(int(np.count_nonzero(arrays[each["name"]].values)) for each in layers),
        counts.total,
        sum(each["position_bits"] for each in layers),
        sum(each["position_bits_bound"] for each in layers),
        far,
        layers,
    )


def _zstd(arrays: Mapping[str, Any]) -> int | None:
    """What a user does without us: all values one behind the other, compressed by zstd -19."""
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        return None
    raw = b"".join(
        part.tobytes()
        for array in arrays.values()
        for part in (array.values, array.scales, array.levels)
        if part is not None
    )
    return len(zstandard.ZstdCompressor(level=19).compress(raw))


def _inputs(example: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    given = (example,) if isinstance(example, Tensor) else tuple(example)
    if not given or any(each.ndim == 0 or len(each) == 0 for each in given):
        raise RegrowError("the example holds no sample; give inputs with the samples on axis 0.")
    return tuple(each.detach().cpu() for each in given)


def _outputs(found: Any) -> tuple[np.ndarray[Any, Any], ...]:
    return tuple(each.float().numpy() for each in tree_flatten(found)[0])


def _bits(tensor: Tensor) -> np.ndarray[Any, Any]:
    """As NumPy stores it: bfloat16 as the bits of uint16."""
    plain = tensor.detach().contiguous()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.int16).numpy().view(np.uint16)
    return plain.numpy()


def _exact(native: ModuleType, tensor: Tensor, keep: Any) -> Any:
    name = _NAMES[tensor.dtype]
    return native.file.Array(_bits(tensor).copy(), name, keep, None, name)


def _rounded(native: ModuleType, name: str, tensor: Tensor, keep: Any, dtype: torch.dtype) -> Any:
    origin = _NAMES[tensor.dtype]
    if tensor.dtype == dtype or tensor.element_size() < dtype.itemsize:
        return _exact(native, tensor, keep)
    rounded = tensor.to(dtype)
    if not torch.equal(torch.isfinite(rounded), torch.isfinite(tensor)):
        raise RegrowError(
            f"{name} has values beyond the range of {_NAMES[dtype]} (the largest is "
            f"{tensor.abs().max():.3g}); choose bf16 or fp32 for --values."
        )
    return native.file.Array(_bits(rounded).copy(), _NAMES[dtype], keep, None, origin)


def _quantised(native: ModuleType, tensor: Tensor, keep: Any, energy: Tensor | None) -> Any:
    whole, scales = quantise(tensor, energy)
    return native.file.Array(whole.numpy(), "int8", keep, scales.numpy(), _NAMES[tensor.dtype])


def _levelled(native: ModuleType, whole: Tensor, levels: Tensor, keep: Any) -> Any:
    return native.file.Array(whole.numpy(), "int8", keep, levels=levels.numpy())


def _difference(
    native: ModuleType,
    written: Path,
    inputs: tuple[Tensor, ...],
    expected: tuple[np.ndarray[Any, Any], ...],
    tolerance: float,
    path: str | os.PathLike[str],
) -> float:
    """The largest difference of the runtime's outputs from torch's, for the batch and for one."""
    try:
        network = native.load(written, threads=1)
    except ValueError as error:  # the runtime's own
        raise RegrowError(f"{os.fspath(path)} was not written: {error}") from error
    far = 0.0
    for samples in {1, len(inputs[0])}:
        found = network(*(each[:samples].numpy() for each in inputs))
        for number, (ours, theirs) in enumerate(zip(_several(found), expected, strict=True)):
            scale = float(np.abs(theirs).max(initial=0.0)) or 1.0
            off = float(np.abs(ours - theirs[:samples]).max(initial=0.0))
            if not off <= tolerance * scale:  # A NaN is not.
                raise RegrowError(
                    f"{os.fspath(path)} was not written: output {number} of the runtime is "
                    f"{off:.3g} from torch's, whose largest value is {scale:.3g}. This is a fault "
                    "of regrow, or the model gives NaN; try other inputs, and report it."
                )
            far = max(far, off)
    return far


def _several(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)
