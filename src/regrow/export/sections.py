"""One array of the packed file: dense, or a bit mask and the kept values. NumPy only."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.core.errors import RegrowError

DTYPES: Mapping[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),  # NumPy has no bfloat16: its raw bits
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}

RANK_LIMIT = 32
_KEYS = {"name", "kind", "dtype", "shape", "offset", "length", "checksum"}


@dataclass(frozen=True, eq=False)
class Section:
    """One stored array.

    Attributes:
        name: unique in its file.
        dtype: a name in `DTYPES`.
        array: the values, of any shape, of the NumPy type that `DTYPES` gives.
        keep: bool, shaped like `array`, True = kept, where everything else is zero bits; None for
            an array without a mask.
    """

    name: str
    dtype: str
    array: npt.NDArray[Any]
    keep: npt.NDArray[np.bool_] | None = None


def encode_section(section: Section) -> tuple[dict[str, Any], bytes]:
    """The header entry of a section, without its offset, and the bytes it describes."""
    where = f"section {section.name!r}"
    expected = DTYPES.get(section.dtype)
    need(expected is not None, f"{where}: the format has no dtype {section.dtype!r}")
    array, keep = section.array, section.keep
    need(array.dtype == expected, f"{where}: {array.dtype} values are not {section.dtype}")
    bits = np.ascontiguousarray(array).reshape(-1).view(_bits_dtype(array.dtype.itemsize))
    bits = bits.astype(bits.dtype.newbyteorder("<"), copy=False)
    _check_bools(section.dtype, bits, where)
    if keep is None:
        mask = bits != 0
        sparse = _ceil_eighth(bits.size) + int(mask.sum()) * bits.itemsize < bits.nbytes
    else:
        need(keep.dtype == np.bool_, f"{where}: the keep mask is {keep.dtype}, not bool")
        need(
            keep.shape == array.shape,
            f"{where}: the keep mask has shape {keep.shape}, the values have {array.shape}",
        )
        mask = np.ascontiguousarray(keep).reshape(-1)
        strays = np.flatnonzero((bits != 0) & ~mask)
        if strays.size:
            raise RegrowError(
                f"{where}: {strays.size} removed entries are not zero bits, the first at flat "
                f"index {strays[0]}; set removed entries to +0.0 or keep them."
            )
        sparse = True
    body = np.packbits(mask, bitorder="little").tobytes() if sparse else b""
    body += (bits[mask] if sparse else bits).tobytes()
    entry = {
        "name": section.name,
        "kind": "bitmask" if sparse else "dense",
        "dtype": section.dtype,
        "shape": list(array.shape),
        "length": len(body),
        "checksum": digest(body).hex(),
    }
    if sparse:
        entry["kept"] = int(mask.sum())
    return entry, body


def decode_section(entry: Mapping[str, Any], body: npt.NDArray[np.uint8]) -> Section:
    """The section of a checked entry, once its bytes are what the entry says."""
    name, shape, dtype = entry["name"], tuple(entry["shape"]), DTYPES[entry["dtype"]]
    where = f"section {name!r}"
    need(digest(body.data).hex() == entry["checksum"], f"{where}: its checksum is wrong")
    stored = _bits_dtype(dtype.itemsize).newbyteorder("<")
    numel = math.prod(shape)
    keep = None
    if entry["kind"] == "bitmask":
        split = _ceil_eighth(numel)
        mask = np.unpackbits(body[:split], bitorder="little").view(np.bool_)
        need(not mask[numel:].any(), f"{where}: bits after the end of its mask are set")
        keep = mask[:numel]
        kept = int(keep.sum())
        need(kept == entry["kept"], f"{where}: its mask keeps {kept}, not {entry['kept']}")
        bits = np.zeros(numel, stored)
        bits[keep] = body[split:].copy().view(stored)
        keep = keep.reshape(shape)
    else:
        bits = body.copy().view(stored)
    _check_bools(entry["dtype"], bits, where)
    native = bits.astype(stored.newbyteorder("="), copy=False)
    return Section(name, entry["dtype"], native.view(dtype).reshape(shape), keep)


def _check_bools(dtype: str, bits: npt.NDArray[Any], where: str) -> None:
    # A boolean byte that is neither 0 nor 1 is undefined behaviour downstream.
    need(dtype != "bool" or not (bits > 1).any(), f"{where}: a boolean is neither 0 nor 1")


def check_entry(entry: Any) -> None:
    """Whether a header entry is well formed and its length is what its shape and kind take."""
    need(type(entry) is dict and type(entry.get("name")) is str, "a section has no name")
    where = f"section {entry['name']!r}"
    kind = entry.get("kind")
    need(kind in ("dense", "bitmask"), f"{where}: unknown kind {kind!r}")
    sparse = kind == "bitmask"
    need(set(entry) == (_KEYS | {"kept"} if sparse else _KEYS), f"{where}: unexpected keys")
    dtype, shape = entry["dtype"], entry["shape"]
    need(type(dtype) is str and dtype in DTYPES, f"{where}: the format has no dtype {dtype!r}")
    need(type(shape) is list and len(shape) <= RANK_LIMIT, f"{where}: the shape is no short list")
    for key in ("offset", "length", *(("kept",) if sparse else ())):
        need(_is_count(entry[key]), f"{where}: {key} is not a count")
    need(all(_is_count(extent) for extent in shape), f"{where}: the shape has a bad extent")
    itemsize = DTYPES[dtype].itemsize
    # Zeros count as one here: an empty array of absurd extents must not overflow its strides.
    spread = math.prod(max(extent, 1) for extent in shape) * itemsize
    need(spread < 2**63, f"{where}: the shape is too large")
    numel = math.prod(shape)
    length = numel * itemsize
    if sparse:
        need(entry["kept"] <= numel, f"{where}: more entries kept than there are")
        length = _ceil_eighth(numel) + entry["kept"] * itemsize
    need(entry["length"] == length, f"{where}: its shape and kind take {length} bytes")


def digest(*parts: bytes | memoryview) -> bytes:
    """The 16-byte BLAKE2b hash of the parts, one after the other."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.digest()


def _bits_dtype(itemsize: int) -> np.dtype[Any]:
    return np.dtype(f"u{itemsize}")


def _ceil_eighth(numel: int) -> int:
    return -(-numel // 8)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def need(condition: bool, fault: str) -> None:
    """Raise the fault unless the condition holds; the caller of the format adds the path."""
    if not condition:
        raise RegrowError(fault)
