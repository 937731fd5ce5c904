"""A torch model in a packed file: written, verified, and loaded to the bit, without pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from regrow.core.errors import RegrowError, unknown
from regrow.core.files import require_space, write_atomic
from regrow.core.maskset import MaskSet
from regrow.core.names import unwrap
from regrow.export.container import Contents, encode, read, version
from regrow.export.runtime import TORCH, restored, runtime
from regrow.export.sections import DTYPES, Section
from regrow.model.inspection import inspect

_DEPLOY = 2  # the format that the runtime reads and writes
_NAMES = {dtype: name for name, dtype in TORCH.items()}
# Values travel between the libraries as raw bits: neither may touch a NaN or a negative zero.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_BITS_NUMPY = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True, eq=False)
class Packed:
    """What a packed file holds.

    Attributes:
        state: every tensor by name, on the CPU, in C order; tied names share one tensor.
        keep: the mask of every tensor that is stored sparse, bool, True = kept, its shape.
        metadata: plain JSON values.
    """

    state: dict[str, Tensor]
    keep: dict[str, Tensor]
    metadata: dict[str, Any]


def pack(
    state: Mapping[str, Tensor],
    keep: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """The packed file of a state dict; equal arguments give equal bytes.

    A tensor with a keep mask is stored as the mask and the kept values, so that a kept weight of
    value 0.0 stays kept. Without one, every entry with nonzero bits counts as kept (-0.0 has
    nonzero bits), and the smaller of the dense and the masked form is stored. Tensors that are the
    same view of the same memory are stored once.

    Args:
        state: tensors by name.
        keep: bool masks by name, True = kept, each of its tensor's shape; removed entries must be
            zero to the bit.
        metadata: dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        RegrowError: a mask that does not fit or removes a nonzero entry, a tensor that the format
            cannot hold, or metadata that JSON cannot give back.
    """
    return b"".join(_chunks(state, keep or {}, metadata or {}))


def unpack(path: str | os.PathLike[str]) -> Packed:
    """Read a packed file, checking all of it first.

    A deploy file (format 2, of `regrow pack`) is read by the runtime; weights that were rounded for
    it come back rounded, in the dtype that they had, and norms that were folded into int8 weights
    do not come back.

    Raises:
        RegrowError: the file is missing, damaged, or of a newer version; or it is a deploy file and
            the runtime is not installed.
    """
    if version(path) == _DEPLOY:
        return _deployed(path)
    contents = read(path)
    state: dict[str, Tensor] = {}
    keep: dict[str, Tensor] = {}
    for section in contents.sections:
        state[section.name] = _to_tensor(section.array, section.dtype)
        if section.keep is not None:
            keep[section.name] = torch.from_numpy(section.keep)
    for alias, name in contents.aliases.items():
        state[alias] = state[name]
        if name in keep:
            keep[alias] = keep[name]
    return Packed(state, keep, dict(contents.metadata))


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    masks: Mapping[str, Tensor] | None = None,
    example: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Write a model to a packed file, and read it back to the bit before the file takes its name.

    Args:
        model: may be compiled or data-parallel; the names are those of the module inside.
        path: the file; a previous one stays intact unless the new one is whole and verified.
        masks: bool keep masks by the names of the model's state dict, such as `Pruning.masks`;
            see `pack`.
        example: one batch of inputs, so that the file can tell its multiply-adds.
        metadata: notes of your own; see `pack`.

    Returns:
        The number of bytes written.

    Raises:
        RegrowError: as `pack`; or the disk refused, or gave back other bytes.
    """
    state = unwrap(model).state_dict()
    counts = inspect(model, masks=masks, example=example).to_dict()
    masks, notes = masks or {}, {**(metadata or {}), "inspection": counts}
    chunks = _chunks(state, masks, notes)
    require_space(Path(os.path.realpath(path)).parent, sum(map(len, chunks)))

    def check(written: Path) -> None:
        packed = unpack(written)
        same = (
            differing(state, packed.state) is None
            and all(torch.equal(mask.cpu(), packed.keep[name]) for name, mask in masks.items())
            and packed.metadata == dict(notes)
        )
        if not same:
            raise RegrowError(
                f"{os.fspath(path)} was not written: reading it back gave other values. Save a "
                "model that nothing is training meanwhile, and check the disk."
            )

    return write_atomic(path, chunks, check=check)


def load(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Load a packed file into a fresh model of the class that was saved.

    Args:
        model: its names, shapes and dtypes must be those of the file; it may be wrapped and on any
            device.
        path: a file written by `save`.

    Returns:
        `model`, with every parameter and buffer equal to the saved one to the bit.

    Raises:
        RegrowError: the file is damaged, or does not fit; the first tensor that does not is named,
            and the model is as it was.
    """
    packed, inner, where = unpack(path), unwrap(model), os.fspath(path)
    live = inner.state_dict()
    _check_fit(live, packed.state, where, packed.metadata.get("values") == "int8")
    before = {name: tensor.detach().clone() for name, tensor in live.items()}
    try:
        inner.load_state_dict(packed.state, strict=True)
        fault = differing(inner.state_dict(), packed.state)
        if fault is not None:
            raise RegrowError(
                f"{where} does not fit the model: {fault} cannot take its value. It shares memory "
                "with another tensor that has other values in the file, or a hook changed it."
            )
    except BaseException as error:
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(before[name])
        if isinstance(error, RuntimeError):
            raise RegrowError(f"{where} does not fit the model: {error}") from error
        raise
    return model


def load_masks(path: str | os.PathLike[str]) -> MaskSet:
    """The keep masks of a packed file's convolution and linear weights, for `attach(masks=...)`.

    Raises:
        RegrowError: the file is damaged, or `save` did not write it.
    """
    packed = unpack(path)
    counts = packed.metadata.get("inspection")
    layers = counts.get("layers") if isinstance(counts, dict) else None
    if not isinstance(layers, list):
        raise RegrowError(f"{os.fspath(path)} does not tell its weights; write it with save.")
    names = [str(layer["name"]) for layer in layers]
    dense = {name: torch.ones_like(packed.state[name], dtype=torch.bool) for name in names}
    return MaskSet({name: packed.keep.get(name, whole) for name, whole in dense.items()})


def _chunks(
    state: Mapping[str, Tensor], keep: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> list[bytes]:
    for name in keep:
        if name not in state:
            raise unknown("tensor for a keep mask", name, state)
    firsts: dict[tuple[Any, ...], str] = {}
    aliases: dict[str, str] = {}
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for name in sorted(state):
        tensor = state[name]
        _check_plain(name, tensor)
        first = firsts.setdefault(_identity(name, tensor), name)
        if first != name:
            aliases[name] = first
        if name in keep:
            mask = _mask(name, keep[name], tensor)
            if not np.array_equal(masks.setdefault(first, mask), mask):
                raise RegrowError(
                    f"{first} and {name} are one tensor, and their keep masks differ; give both "
                    "the same mask, or only one of them."
                )
    sections = [
        Section(name, _NAMES[state[name].dtype], _to_array(state[name]), masks.get(name))
        for name in firsts.values()
    ]
    return encode(Contents(tuple(sections), aliases, metadata))


def _identity(name: str, tensor: Tensor) -> tuple[Any, ...]:
    """Equal for two names exactly if both are the same view of the same memory."""
    if tensor.numel() == 0:
        return (name,)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _mask(name: str, mask: Tensor, tensor: Tensor) -> npt.NDArray[np.bool_]:
    if mask.dtype != torch.bool or mask.shape != tensor.shape:
        raise RegrowError(
            f"{name}: the keep mask is {mask.dtype} of shape {tuple(mask.shape)}; it must be bool "
            f"of shape {tuple(tensor.shape)}, like the tensor."
        )
    return mask.detach().cpu().numpy()


def _check_plain(name: str, tensor: object) -> None:
    """Refuse what has no plain values of a known dtype."""
    if not isinstance(tensor, Tensor):
        raise RegrowError(f"{name} is a {type(tensor).__name__}; only tensors can be packed.")
    if is_lazy(tensor) or tensor.is_meta:
        raise RegrowError(f"{name} has no values yet; run a batch, or move it off 'meta', first.")
    kind = type(tensor.detach())
    if kind is not Tensor or tensor.layout != torch.strided or tensor.dtype not in _NAMES:
        raise RegrowError(
            f"{name} is a {tensor.layout} {kind.__name__} of {tensor.dtype}; only plain strided "
            f"tensors of {', '.join(_NAMES.values())} can be packed. Convert it first."
        )


def _check_fit(
    live: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str, folded: bool
) -> None:
    for name, tensor in live.items():
        _check_plain(name, tensor)
        fault = None
        if name not in state:
            fault = f"{name} {tuple(tensor.shape)} is missing from the file"
            if folded:
                fault += (
                    ", whose norms were folded into its int8 weights; load one that `save` wrote"
                )
        elif state[name].shape != tensor.shape:
            fault = (
                f"{name} has shape {tuple(state[name].shape)} in the file and "
                f"{tuple(tensor.shape)} in the model"
            )
        elif state[name].dtype != tensor.dtype:
            fault = f"{name} is {state[name].dtype} in the file and {tensor.dtype} in the model"
        if fault is not None:
            raise RegrowError(
                f"{where} does not fit the model: {fault}; build the model as it was saved."
            )
    for name in state:
        if name not in live:
            raise RegrowError(
                f"{where} does not fit the model: it holds {name}, which the model lacks; build "
                "the model as it was saved."
            )


def differing(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> str | None:
    """The first name whose tensors are not equal to the bit, or that only one side has."""
    for name in [*first, *second]:
        if name not in first or name not in second:
            return name
        if not np.array_equal(_bits(first[name]), _bits(second[name])):
            return name
    return None


def _bits(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.detach().cpu().contiguous().view(_BITS[tensor.element_size()]).numpy()


def _to_array(tensor: Tensor) -> npt.NDArray[Any]:
    return _bits(tensor).view(DTYPES[_NAMES[tensor.dtype]])


def _to_tensor(array: npt.NDArray[Any], dtype: str) -> Tensor:
    return torch.from_numpy(array.view(_BITS_NUMPY[array.itemsize])).view(TORCH[dtype])


def _deployed(path: str | os.PathLike[str]) -> Packed:
    file = runtime().file
    try:
        contents = file.read(path)
    except ValueError as error:  # the runtime's own; its message names the file and the remedy
        raise RegrowError(str(error)) from error
    state = {name: restored(array) for name, array in contents.arrays.items()}
    masks = {name: array.keep for name, array in contents.arrays.items() if array.keep is not None}
    keep = {name: torch.from_numpy(mask) for name, mask in masks.items()}
    return Packed(state, keep, dict(contents.metadata))
