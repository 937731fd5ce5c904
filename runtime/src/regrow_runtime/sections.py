"""A section of the packed file: arrays as positions, values and row scales, each raw or coded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regrow_runtime import _native
from regrow_runtime.arrays import (
    DTYPES,
    Array,
    Bits,
    bits_of,
    check_bools,
    check_levels,
    need,
)
from regrow_runtime.errors import RuntimeFileError

CODED = ("float32", "float16", "bfloat16", "int8")

_INNER_LIMIT = 64
GRID_LIMIT = 2**30
# What a section of its own costs: its checksum, its entry in the header, the ends of its streams.
_SECTION_COST = 64


@dataclass(frozen=True)
class Entry:
    """A section as the header tells it.

    Attributes:
        names: of its arrays, one after the other in its streams; one alone if it has a mask or
            scales.
        shapes: of each.
        dtype: of all its values.
        origin: of all its values.
        kept: how many entries have a value; None for dense arrays.
        positions: bytes of the positions.
        values: bytes of the values.
        scales: bytes of the row scales, or of the levels; None where there are none.
        levels: how many there are; None where the scales, if any, are of rows.
        checksum: of all its bytes, in hexadecimal.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    origin: str
    kept: int | None
    positions: int
    values: int
    scales: int | None
    levels: int | None
    checksum: str

    @property
    def where(self) -> str:
        more = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        return f"section {self.names[0]!r}{more}"

    @property
    def count(self) -> int:
        return sum(map(math.prod, self.shapes))

    @property
    def rows(self) -> int:
        return _rows(self.shapes)

    @property
    def length(self) -> int:
        return self.positions + self.values + (self.scales or 0)

    @property
    def memory(self) -> int:
        """Bytes of its arrays in memory: values, mask and scales."""
        mask = 0 if self.kept is None else self.count
        return self.count * DTYPES[self.dtype].itemsize + mask + 4 * self.factors

    @property
    def factors(self) -> int:
        """How many scales or levels there are."""
        if self.scales is None:
            return 0
        return self.shapes[0][0] if self.levels is None else self.levels


def grid(shape: Sequence[int]) -> tuple[int, int, int]:
    """A shape as rows, columns and inner places, as which masks are coded."""
    rows = shape[0] if len(shape) > 1 else 1
    inner = math.prod(shape[2:])
    if not 0 < inner <= _INNER_LIMIT:
        inner = 1
    rest = math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)
    return rows, rest // inner, inner


def _rows(shapes: Sequence[tuple[int, ...]]) -> int:
    return grid(shapes[0])[0] if len(shapes) == 1 else 1


def same(array: Array) -> Hashable:
    """Equal for arrays that mean the same to the bit."""
    parts = array.values, array.keep, array.scales, array.levels
    digests = [None if part is None else digest(bits_of(part).data) for part in parts]
    return (array.dtype, array.origin, array.values.shape, *digests)


def with_mask(name: str, array: Array) -> Array:
    """The array with a mask of its nonzero bit patterns, if it has none and that is smaller."""
    if array.keep is not None:
        return array
    keep = (bits_of(array.values) != 0).reshape(array.values.shape)
    if keep.all():
        return array
    masked = replace(array, keep=keep)
    sparse, _ = encode_section([name], [masked])
    dense, _ = encode_section([name], [array])
    return masked if sparse.length + _SECTION_COST < dense.length else array


def encode_section(names: Sequence[str], arrays: Sequence[Array]) -> tuple[Entry, bytes]:
    """What the header tells of a section, and its bytes.

    Args:
        names: of its arrays.
        arrays: checked ones of one dtype and origin; one alone if it has a mask, scales or levels.
    """
    first = arrays[0]
    shapes = tuple(array.values.shape for array in arrays)
    bits = np.concatenate([bits_of(array.values) for array in arrays])
    keep = None if first.keep is None else np.ascontiguousarray(first.keep).reshape(-1)
    positions = b"" if keep is None else _encode_positions(keep, shapes[0])
    values = _encode_values(bits, first.dtype, _rows(shapes), keep)
    scales = None
    factors = first.scales if first.levels is None else first.levels
    if factors is not None:
        scales = _encode_values(bits_of(factors), "float32", 1, None)
    body = positions + values + (scales or b"")
    kept = None if keep is None else int(np.count_nonzero(keep))
    levels = None if first.levels is None else len(first.levels)
    lengths = len(positions), len(values), None if scales is None else len(scales), levels
    checksum = digest(body).hex()
    return Entry(tuple(names), shapes, first.dtype, first.origin, kept, *lengths, checksum), body


def decode_section(entry: Entry, body: bytes) -> dict[str, Array]:
    """The arrays of a checked entry by name, once the bytes are what it says."""
    where, dtype = entry.where, DTYPES[entry.dtype]
    need(digest(body).hex() == entry.checksum, f"{where}: its checksum is wrong")
    data = np.frombuffer(body, np.uint8)
    split = entry.positions, entry.positions + entry.values
    stream = "positions"
    try:
        keep = None
        if entry.kept is not None:
            keep = _decode_positions(data[: split[0]], entry.shapes[0], entry.kept)
        stream = "values"
        bits = (np.empty if keep is None else np.zeros)(entry.count, f"u{dtype.itemsize}")
        _decode_values(data[split[0] : split[1]], entry.dtype, entry.rows, keep, bits)
        scales = None
        if entry.scales is not None:
            stream = "scales"
            scales = np.empty(entry.factors, np.float32)
            _decode_values(data[split[1] :], "float32", 1, None, scales.view(np.uint32))
    except (_native.Damaged, RuntimeFileError) as fault:
        raise RuntimeFileError(f"{where}: its {stream} are damaged: {fault}") from None
    check_bools(entry.dtype, bits, where)
    values, levels = bits.view(dtype), None
    if entry.levels is not None and scales is not None:
        check_levels(scales, values, where)
        scales, levels = None, scales
    arrays, end = {}, 0
    for name, shape in zip(entry.names, entry.shapes, strict=True):
        start, end = end, end + math.prod(shape)
        mask = None if keep is None else keep.reshape(shape)
        part = values[start:end].reshape(shape)
        arrays[name] = Array(part, entry.dtype, mask, scales, entry.origin, levels)
    return arrays


def _encode_positions(keep: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> bytes:
    if keep.all() or not keep.any():
        return b""
    raw = np.packbits(keep, bitorder="little").tobytes()
    rows, columns, inner = grid(shape)
    if rows * columns >= GRID_LIMIT:
        return raw
    coded: bytes = _native.encode_mask(keep.view(np.uint8), rows, columns, inner)
    return coded if len(coded) < len(raw) else raw


def _decode_positions(
    data: npt.NDArray[np.uint8], shape: tuple[int, ...], kept: int
) -> npt.NDArray[np.bool_]:
    count = math.prod(shape)
    if kept in (0, count):
        return np.full(count, kept > 0)
    if data.size == -(-count // 8):
        mask = np.unpackbits(data, bitorder="little").view(np.bool_)
        need(not mask[count:].any(), "bits after their end are set")
        keep = mask[:count]
        found = int(np.count_nonzero(keep))
    else:
        keep = np.empty(count, np.bool_)
        found = _native.decode_mask(data, *grid(shape), keep.view(np.uint8))
    need(found == kept, f"they keep {found} entries, not {kept}")
    return keep


def _encode_values(bits: Bits, dtype: str, rows: int, keep: npt.NDArray[np.bool_] | None) -> bytes:
    raw = bits if keep is None else bits[keep]
    # The code of int8 is symmetric and has no -128.
    if raw.size and dtype in CODED and not (dtype == "int8" and (raw == 128).any()):
        mask = None if keep is None else keep.view(np.uint8)
        coded: bytes = _native.encode_values(bits.view(np.uint8), dtype, rows, mask)
        if len(coded) < raw.nbytes:
            return coded
    return raw.astype(raw.dtype.newbyteorder("<"), copy=False).tobytes()


def _decode_values(
    data: npt.NDArray[np.uint8],
    dtype: str,
    rows: int,
    keep: npt.NDArray[np.bool_] | None,
    bits: Bits,
) -> None:
    """Fill `bits` where the mask keeps them; a stream as long as the raw values is raw."""
    kept = bits.size if keep is None else int(np.count_nonzero(keep))
    if data.size == kept * bits.itemsize:
        raw = np.frombuffer(data, bits.dtype.newbyteorder("<"))
        if keep is None:
            bits[:] = raw
        else:
            bits[keep] = raw
    else:
        mask = None if keep is None else keep.view(np.uint8)
        _native.decode_values(data, dtype, rows, mask, bits.view(np.uint8))


def digest(*parts: bytes | memoryview) -> bytes:
    """The 16-byte BLAKE2b hash of the parts, one after the other."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.digest()
