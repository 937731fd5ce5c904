"""The packed file as bytes: named arrays, dense or sparse, and a JSON header. NumPy only.

The layout is described byte by byte in docs/format.md. Equal contents have equal bytes, and the
reader checks every byte of a file, padding included, before it returns anything.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regrow.core.errors import RegrowError
from regrow.export.sections import (
    Section,
    check_entry,
    decode_section,
    digest,
    encode_section,
    need,
)

MAGIC = b"\x89regrow\n"
VERSION = 1
ALIGNMENT = 64
HEADER_LIMIT = 16 * 2**20
DEPTH_LIMIT = 32

_FIELDS = struct.Struct("<8sIIQQ")  # magic, version, flags, file length, header length
_PRELUDE = _FIELDS.size + 16  # and the checksum of the fields and the header


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds: sections, further names for some of them, and plain JSON metadata."""

    sections: tuple[Section, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def encode(contents: Contents) -> list[bytes]:
    """The bytes of a file, in chunks; equal contents give equal bytes.

    A section with a mask is stored as that mask and the kept values; one without is stored dense
    or as the mask of its nonzero bit patterns, whichever is smaller.

    Raises:
        RegrowError: a value outside its section's mask, metadata that JSON cannot hold exactly, or
            a dtype, name or alias that the format does not have.
    """
    entries: list[dict[str, Any]] = []
    bodies = []
    end = 0
    for section in sorted(contents.sections, key=lambda one: one.name):
        entry, body = encode_section(section)
        entry["offset"] = _aligned(end)
        end = entry["offset"] + len(body)
        entries.append(entry)
        bodies.append(body)
    header = {
        "aliases": dict(contents.aliases),
        "metadata": dict(contents.metadata),
        "sections": entries,
    }
    _check_header(header)
    try:
        raw = _canonical(header)
    except ValueError as error:
        raise RegrowError(f"names or metadata cannot be written as JSON: {error}.") from error
    need(len(raw) <= HEADER_LIMIT, f"names and metadata take more than {HEADER_LIMIT:,} bytes")
    start = _aligned(_PRELUDE + len(raw))
    fields = _FIELDS.pack(MAGIC, VERSION, 0, start + end, len(raw))
    chunks = [fields, digest(fields, raw), raw]
    position = _PRELUDE + len(raw)
    for entry, body in zip(entries, bodies, strict=True):
        chunks += [bytes(start + entry["offset"] - position), body]
        position = start + entry["offset"] + len(body)
    return [*chunks, bytes(start + end - position)]


def read(path: str | os.PathLike[str]) -> Contents:
    """Read a file; nothing is returned unless every byte of it is as the format demands.

    Raises:
        RegrowError: the file cannot be opened, is not whole, is not of this format, or was
            written by a newer version; the message names the path, the section and the reason.
    """
    where = os.fspath(path)
    try:
        # Opening a pipe would wait for a writer.
        if os.path.exists(where) and not os.path.isfile(where):
            raise RegrowError(f"{where} is not a file; give the path of a packed file.")
        with open(where, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # The prelude is judged first, so that no large foreign file is read into memory.
            _check_prelude(file.read(_PRELUDE), size, where)
            file.seek(0)
            data = file.read(size)
    except OSError as error:
        raise RegrowError(
            f"{where} cannot be read: {error.strerror or error}; check the path and permissions."
        ) from error
    return decode(data, where)


def version(path: str | os.PathLike[str]) -> int | None:
    """The format of a packed file; None where there is none, or the file is of another kind."""
    if not os.path.isfile(path):  # Opening a pipe would wait for a writer.
        return None
    try:
        with open(path, "rb") as file:
            start = file.read(_PRELUDE)
    except OSError:
        return None
    if len(start) < _PRELUDE or not start.startswith(MAGIC):
        return None
    return int(_FIELDS.unpack_from(start)[1])


def decode(data: bytes, where: str = "the packed data") -> Contents:
    """As `read`, from bytes in memory; `where` names them in messages."""
    length = _check_prelude(data[:_PRELUDE], len(data), where)
    try:
        return _decode(data, length)
    except RegrowError as fault:
        raise _damaged(where, str(fault)) from None


def _decode(data: bytes, length: int) -> Contents:
    position = _PRELUDE + length
    raw = data[_PRELUDE:position]
    checksum = data[_FIELDS.size : _PRELUDE]
    need(digest(data[: _FIELDS.size], raw) == checksum, "the header's checksum is wrong")
    try:
        header = json.loads(raw)
        canonical = _canonical(header) == raw
    except (ValueError, RecursionError):
        canonical = False
    need(canonical, "the header is not canonical JSON")
    end = _check_header(header)
    start = _aligned(position)
    need(start + end == len(data), f"the sections end at byte {start + end} of {len(data)}")
    whole = np.frombuffer(data, np.uint8)
    sections = []
    for entry in header["sections"]:
        offset = start + entry["offset"]
        need(not whole[position:offset].any(), f"the padding before byte {offset} is not zero")
        position = offset + entry["length"]
        sections.append(decode_section(entry, whole[offset:position]))
    need(not whole[position:].any(), "the padding at the end is not zero")
    return Contents(tuple(sections), header["aliases"], header["metadata"])


def _check_prelude(prelude: bytes, size: int, where: str) -> int:
    """The header's length, once the prelude fits a file of `size` bytes."""
    if prelude[: len(MAGIC)] != MAGIC[: len(prelude)]:
        raise RegrowError(f"{where} is not a packed file of regrow: its first bytes differ.")
    if len(prelude) < _PRELUDE:
        raise _damaged(where, f"it ends after {size} bytes")
    _, version, flags, total, length = _FIELDS.unpack_from(prelude)
    if version > VERSION:
        raise RegrowError(
            f"{where} was written by a newer regrow (format {version}, and this one reads format "
            f"{VERSION}); upgrade regrow."
        )
    faults = {
        f"format {version} does not exist": version != VERSION,
        f"unknown flags {flags:#x}": flags != 0,
        f"it should have {total} bytes and has {size}": total != size,
        f"a header of {length} bytes is too long": length > min(size - _PRELUDE, HEADER_LIMIT),
    }
    for fault, present in faults.items():
        if present:
            raise _damaged(where, fault)
    return int(length)


def _check_header(header: Any) -> int:
    """The length of all sections together, once every entry is well formed and in its place."""
    need(type(header) is dict, "the header is not an object")
    need(set(header) == {"aliases", "metadata", "sections"}, "the header has other keys")
    need(type(header["metadata"]) is dict, "metadata is not an object")
    _check_plain(header["metadata"], DEPTH_LIMIT)
    need(type(header["sections"]) is list, "sections is not a list")
    end, previous = 0, ""
    for entry in header["sections"]:
        check_entry(entry)
        name = entry["name"]
        need(name > previous, f"section {name!r}: the name is empty, repeated or out of order")
        need(entry["offset"] == _aligned(end), f"section {name!r}: it is not at its offset")
        end = entry["offset"] + entry["length"]
        previous = name
    names = {entry["name"] for entry in header["sections"]}
    need(type(header["aliases"]) is dict, "aliases is not an object")
    for alias, target in header["aliases"].items():
        need(type(alias) is str and alias not in names, f"alias {alias!r} is a section's name")
        need(type(target) is str and target in names, f"alias {alias!r} names no section")
    return end


def _check_plain(value: Any, depth: int) -> None:
    """Refuse what JSON would not give back unchanged, and nesting that a parser cannot follow."""
    need(depth > 0, f"metadata is nested deeper than {DEPTH_LIMIT} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            need(isinstance(key, str), f"metadata has the key {key!r}, which is not a string")
            _check_plain(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, depth - 1)
    else:
        need(
            value is None or isinstance(value, (str, int, float)),
            f"metadata holds a {type(value).__name__}; "
            "use dicts, lists, strings, finite numbers, booleans and None",
        )


def _canonical(header: Any) -> bytes:
    """Sorted keys, no spaces, no NaN: one spelling for one value."""
    text = json.dumps(
        header, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode("utf-8")


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _damaged(where: str, fault: str) -> RegrowError:
    return RegrowError(
        f"{where} cannot be used: {fault}. It is damaged or was changed; copy or export it again."
    )
