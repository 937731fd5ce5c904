"""The packed file, format 2: arrays, a graph and metadata in few bytes, without pickle.

The layout is described byte by byte in docs/format-2.md. Equal contents have equal bytes, and the
reader checks every byte of a file before it returns anything.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from regrow_runtime.arrays import Array, check_array, need
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.graph import Graph
from regrow_runtime.header import LIMIT, Header, deflate, inflate, read_header, write_header
from regrow_runtime.sections import (
    decode_section,
    digest,
    encode_section,
    same,
    with_mask,
)

__all__ = ["Array", "Contents", "decode", "encode", "read", "sizes", "write"]

MAGIC = b"\x89regrow\n"
VERSION = 2
MEMORY_LIMIT = 4 << 30

_FIELDS = struct.Struct("<8sIIQII")  # magic, version, flags, length of file, header: stored, whole
_PRELUDE = _FIELDS.size + 16  # and the checksum of the fields and the stored header


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds.

    Attributes:
        arrays: by name. Names whose arrays are equal share one `Array` after reading.
        graph: what the network computes, or None.
        metadata: dicts, lists, strings, finite numbers, 64-bit integers, booleans and None.
    """

    arrays: Mapping[str, Array]
    graph: Graph | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def encode(contents: Contents) -> bytes:
    """The bytes of a file; equal contents give equal bytes.

    An array with a mask is stored as positions and kept values, so that a kept 0.0 stays kept. Of
    one without, the entries of nonzero bits are kept if that is smaller.

    Raises:
        RuntimeFileError: a nonzero value outside its mask; an array, a graph or metadata that the
            format cannot hold.
    """
    header, bodies = _sections(contents)
    raw = write_header(header)
    stored = deflate(raw)
    total = _PRELUDE + len(stored) + sum(map(len, bodies))
    fields = _FIELDS.pack(MAGIC, VERSION, 0, total, len(stored), len(raw))
    return b"".join([fields, digest(fields, stored), stored, *bodies])


def decode(data: bytes, *, memory_limit: int = MEMORY_LIMIT) -> Contents:
    """As `read`, from bytes in memory."""
    return _read(io.BytesIO(data), len(data), "the packed data", memory_limit)


def write(path: str | os.PathLike[str], contents: Contents) -> int:
    """Write a file, so that at any moment `path` holds all of the old file or all of the new.

    Returns:
        The number of bytes written.

    Raises:
        RuntimeFileError: as `encode`, or the disk refuses.
    """
    data = encode(contents)
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise RuntimeFileError(
                f"{os.fspath(path)} cannot be written: {error.strerror or error}; choose a folder "
                "that exists, has room and may be written to."
            ) from error
        raise
    _sync_folder(target.parent)
    return len(data)


def read(path: str | os.PathLike[str], *, memory_limit: int = MEMORY_LIMIT) -> Contents:
    """Read a file; nothing is returned unless every byte of it is as the format demands.

    Args:
        path: a file.
        memory_limit: bytes that all arrays together may take, masks included. What a file declares
            is compared with it before anything is unpacked; unpacking takes at most twice as much.

    Raises:
        RuntimeFileError: the file cannot be opened, is not whole, is not of this format, was
            written by a newer version or is too large; the message names the path, the section and
            the reason.
    """
    where = os.fspath(path)
    with _opened(where) as (file, size):
        return _read(file, size, where, memory_limit)


def sizes(source: Contents | str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What each array takes in a file, in the order of their names.

    Args:
        source: a file, of which the header alone is read, or what would be written.

    Returns:
        For each stored array (of equal ones, the first name) its `name`, `dtype`, the number of its
        `weights` and of those `kept`, and in bits: `position_bits`; `position_bits_bound`, which
        is log2 of the number of masks that keep as many; `value_bits`; `scale_bits`. Arrays that
        share a section share its bits by their numbers of weights.
    """
    if isinstance(source, Contents):
        header, _ = _sections(source)
    else:
        where = os.fspath(source)
        with _opened(where) as (file, size):
            header = _read_header(file, size, where)
    found = []
    for entry in header.entries:
        for name, shape in zip(entry.names, entry.shapes, strict=True):
            weights = math.prod(shape)
            kept = weights if entry.kept is None else entry.kept
            found.append(
                {
                    "name": name,
                    "dtype": entry.dtype,
                    "weights": weights,
                    "kept": kept,
                    "position_bits": 8 * entry.positions,
                    "position_bits_bound": _log2_choices(weights, kept),
                    "value_bits": 8 * entry.values * weights / max(entry.count, 1),
                    "scale_bits": 8 * (entry.scales or 0),
                }
            )
    return sorted(found, key=lambda one: one["name"])


def _log2_choices(count: int, kept: int) -> float:
    """log2 of C(count, kept)."""
    natural = math.lgamma(count + 1) - math.lgamma(kept + 1) - math.lgamma(count - kept + 1)
    return max(natural / math.log(2), 0.0)


def _sections(contents: Contents) -> tuple[Header, list[bytes]]:
    """The header, and the bytes of its sections in their order."""
    firsts: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    single: list[list[tuple[str, Array]]] = []
    shared: dict[tuple[str, str], list[tuple[str, Array]]] = {}
    for name in sorted(contents.arrays):
        check_array(name, contents.arrays[name])
        array = with_mask(name, contents.arrays[name])
        first = firsts.setdefault(same(array), name)
        if first != name:
            aliases[name] = first
        elif array.keep is None and array.scales is None and array.levels is None:
            shared.setdefault((array.dtype, array.origin), []).append((name, array))
        else:
            single.append([(name, array)])
    for members in shared.values():
        # Arrays of one role have values of one kind, which the code learns.
        members.sort(key=lambda one: (one[0].rpartition(".")[2], one[0]))
    encoded = [
        encode_section([name for name, _ in members], [array for _, array in members])
        for members in [*single, *shared.values()]
    ]
    encoded.sort(key=lambda one: one[0].names)
    entries = tuple(entry for entry, _ in encoded)
    header = Header(entries, aliases, contents.graph, contents.metadata)
    return header, [body for _, body in encoded]


@contextlib.contextmanager
def _opened(where: str) -> Iterator[tuple[BinaryIO, int]]:
    try:
        # Opening a pipe would wait for a writer.
        if os.path.exists(where) and not os.path.isfile(where):
            raise RuntimeFileError(f"{where} is not a file; give the path of a packed file.")
        with open(where, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise RuntimeFileError(
            f"{where} cannot be read: {error.strerror or error}; check the path and permissions."
        ) from error


def _read(file: BinaryIO, size: int, where: str, memory_limit: int) -> Contents:
    header = _read_header(file, size, where)
    needed = sum(entry.memory for entry in header.entries)
    if needed > memory_limit:
        raise RuntimeFileError(
            f"{where} unpacks to {needed:,} bytes, and the limit is {memory_limit:,}; if you trust "
            "it, give a greater memory_limit."
        )
    arrays: dict[str, Array] = {}
    try:
        for entry in header.entries:
            arrays.update(decode_section(entry, file.read(entry.length)))
    except RuntimeFileError as fault:
        raise _damaged(where, str(fault)) from None
    except MemoryError as error:
        raise RuntimeFileError(
            f"{where} unpacks to {needed:,} bytes, and there is less memory; free some."
        ) from error
    arrays.update({alias: arrays[name] for alias, name in header.aliases.items()})
    return Contents(arrays, header.graph, header.metadata)


def _read_header(file: BinaryIO, size: int, where: str) -> Header:
    """The header, once it fits a file of `size` bytes; the file stands at the first section."""
    # The prelude is judged first, so that no large foreign file is read into memory.
    prelude = file.read(_PRELUDE)
    stored, whole = _check_prelude(prelude, size, where)
    data = file.read(stored)
    try:
        checksum = digest(prelude[: _FIELDS.size], data)
        need(checksum == prelude[_FIELDS.size :], "the header's checksum is wrong")
        header = read_header(inflate(data, whole))
        end = _PRELUDE + stored + sum(entry.length for entry in header.entries)
        need(end == size, f"the sections end at byte {end} of {size}")
    except RuntimeFileError as fault:
        raise _damaged(where, str(fault)) from None
    return header


def _check_prelude(prelude: bytes, size: int, where: str) -> tuple[int, int]:
    """How long the header is, stored and inflated, once the prelude fits a file of `size` bytes."""
    if prelude[: len(MAGIC)] != MAGIC[: len(prelude)]:
        raise RuntimeFileError(f"{where} is not a packed file of regrow: its first bytes differ.")
    if len(prelude) < _PRELUDE:
        raise _damaged(where, f"it ends after {size} bytes")
    _, version, flags, total, stored, whole = _FIELDS.unpack_from(prelude)
    if version > VERSION:
        raise RuntimeFileError(
            f"{where} was written by a newer regrow (format {version}, and this one reads format "
            f"{VERSION}); upgrade regrow-runtime."
        )
    if version == 1:
        raise RuntimeFileError(
            f"{where} is of format 1, which holds no network to run; read it with regrow, and pack "
            "it for the runtime."
        )
    faults = {
        f"format {version} does not exist": version != VERSION,
        f"unknown flags {flags:#x}": flags != 0,
        f"it should have {total} bytes and has {size}": total != size,
        f"a header of {stored} bytes is too long": stored > min(size - _PRELUDE, LIMIT),
        f"a header of {whole} bytes is too long": whole > LIMIT,
    }
    for fault, present in faults.items():
        if present:
            raise _damaged(where, fault)
    return int(stored), int(whole)


def _damaged(where: str, fault: str) -> RuntimeFileError:
    return RuntimeFileError(
        f"{where} cannot be used: {fault}. It is damaged or was changed; copy or export it again."
    )


def _sync_folder(folder: Path) -> None:
    """Make the new name durable; the file is whole either way, and some systems cannot do this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
