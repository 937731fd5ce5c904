"""A small packed file, and the documented layout written down a second time."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np

from regrow.export.container import Contents, encode
from regrow.export.sections import Section

PRELUDE = 48


def example() -> Contents:
    """A small file with both kinds, padding, an alias, unused mask bits, a scalar and an empty."""
    sparse = np.zeros((5, 7), np.float32)
    sparse[1, 2], sparse[4, 6] = -0.0, np.nan
    return Contents(
        (
            Section("sparse", "float32", sparse),
            Section("flags", "bool", np.array([True, False, True])),
            Section("dense", "int16", np.arange(1, 6, dtype=np.int16)),
            Section("empty", "float64", np.zeros((0, 3))),
            Section("scalar", "bfloat16", np.array(3, np.uint16)),
        ),
        {"tied": "sparse"},
        {"näme": [1, 2.5, None, True, {"é": "x"}]},
    )


def data_of(contents: Contents) -> bytes:
    return b"".join(encode(contents))


def snapshot(contents: Contents) -> dict[str, Any]:
    """Everything a file says, as comparable values; arrays as their bytes."""
    return {
        "aliases": contents.aliases,
        "metadata": contents.metadata,
        "sections": {
            section.name: (
                section.dtype,
                section.array.dtype,
                section.array.shape,
                section.array.tobytes(),
                None if section.keep is None else (section.keep.shape, section.keep.tobytes()),
            )
            for section in contents.sections
        },
    }


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and everything from the origin on, by the documented layout alone."""
    length = struct.unpack_from("<Q", data, 24)[0]
    origin = -(-(PRELUDE + length) // 64) * 64
    return json.loads(data[PRELUDE : PRELUDE + length]), data[origin:]


def join(header: Any, body: bytes, *, version: int = 1, flags: int = 0) -> bytes:
    """A file whose checksum over the header is right, whatever the header says."""
    raw = header if isinstance(header, bytes) else dump(header)
    padding = bytes(-(PRELUDE + len(raw)) % 64)
    total = PRELUDE + len(raw) + len(padding) + len(body)
    fields = struct.pack("<8sIIQQ", b"\x89regrow\n", version, flags, total, len(raw))
    return fields + digest(fields + raw) + raw + padding + body


def dump(header: Any) -> bytes:
    return json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def entry_of(header: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in header["sections"] if entry["name"] == name)
