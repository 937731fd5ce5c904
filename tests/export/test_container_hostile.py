from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_example import (
    data_of,
    digest,
    entry_of,
    example,
    join,
    snapshot,
    split,
)

from regrow.core.errors import RegrowError
from regrow.export import container
from regrow.export.container import Contents, decode, read


def test_every_truncation_and_extension_is_refused(tmp_path: Path) -> None:
    data = data_of(example())
    path = tmp_path / "m.regrow"
    for length in range(len(data)):
        with pytest.raises(RegrowError):
            decode(data[:length])
        path.write_bytes(data[:length])
        with pytest.raises(RegrowError, match=r"m\.regrow"):
            read(path)
    for tail in (b"\0", bytes(64), data):
        with pytest.raises(RegrowError):
            decode(data + tail)


def test_every_flipped_bit_and_replaced_byte_is_refused() -> None:
    data = data_of(example())
    decode(data)
    for position in range(len(data)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = bytearray(data)
            changed[position] ^= flip
            with pytest.raises(RegrowError):
                decode(bytes(changed))


def test_random_damage_in_several_places_is_refused() -> None:
    data = data_of(example())
    generator = np.random.default_rng(0)
    for _ in range(600):
        changed = bytearray(data)
        for position in generator.integers(len(data), size=generator.integers(2, 12)):
            changed[position] = generator.integers(256)
        start, stop = sorted(generator.integers(len(data), size=2))
        kind = generator.integers(3)
        if kind == 1:
            del changed[start:stop]
        elif kind == 2:
            changed[start:stop] = changed[start:stop][::-1]
        if bytes(changed) != data:
            with pytest.raises(RegrowError):
                decode(bytes(changed))


HOSTILE: list[Any] = [
    *(0, 1, -1, 2, 8, 63, 64, 128, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, 10**40),
    *(True, None, 1.0, 0.5, 1e300, "", "dense", "bitmask", "int64", "uint8", "bool", "float64"),
    *([], [0], [-1], [2**63, 0], [0, 2**62, 2**62], [2**32, 2**32], [1] * 40, [[1]], [True]),
    *([1.0], ["1"], {}, {"a": 1}, "00" * 16, [2**61], [2**60, 8], [35], [36], [40], [7, 5]),
]


def test_hostile_headers_with_right_checksums() -> None:
    """A value of any field may be anything: a RegrowError or a well-formed file results."""
    data = data_of(example())
    generator = np.random.default_rng(1)
    refused = 0
    for _ in range(1500):
        header, body = split(data)
        for _ in range(generator.integers(1, 3)):
            entry = header["sections"][generator.integers(len(header["sections"]))]
            keys = [*entry, "kept", "more"]
            key = keys[generator.integers(len(keys))]
            action = generator.integers(8)
            if action == 0:
                entry.pop(key, None)
            elif action == 1:
                other = header["sections"][generator.integers(len(header["sections"]))]
                entry[key] = other.get(key, 0)
            else:
                entry[key] = HOSTILE[generator.integers(len(HOSTILE))]
        try:
            contents = decode(join(header, body))
        except RegrowError:
            refused += 1
        else:
            for section in contents.sections:
                assert section.array.nbytes <= 64 * len(data)
            again = decode(data_of(contents))
            assert [s.array.tobytes() for s in again.sections] == [
                s.array.tobytes() for s in contents.sections
            ]
    assert refused > 1200


def set_entry(name: str, /, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: entry_of(header, name).update(values)


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "overlap": (set_entry("sparse", offset=0), "not at its offset"),
    "gap": (set_entry("sparse", offset=2**40), "not at its offset"),
    "unaligned": (set_entry("sparse", offset=193), "not at its offset"),
    "negative offset": (set_entry("sparse", offset=-64), "offset is not a count"),
    "huge mask beyond the end": (
        set_entry("sparse", shape=[2**40], length=2**37 + 8),
        "end at byte",
    ),
    "huge shape": (set_entry("dense", shape=[2**50]), "take 2251799813685248 bytes"),
    "overflow": (set_entry("dense", shape=[2**32, 2**32]), "too large"),
    "overflow hidden by a zero": (set_entry("empty", shape=[0, 2**62, 2**62]), "too large"),
    "negative extent": (set_entry("dense", shape=[-5]), "bad extent"),
    "two negative extents": (set_entry("dense", shape=[-5, -1]), "bad extent"),
    "boolean extent": (set_entry("scalar", shape=[True]), "bad extent"),
    "high rank": (set_entry("scalar", shape=[1] * 33), "no short list"),
    "huge mask": (set_entry("sparse", shape=[2**40]), "its shape and kind take"),
    "kept too few": (set_entry("sparse", kept=1, length=9), "end at byte"),
    "kept more than there are": (set_entry("sparse", kept=36), "more entries kept"),
    "other dtype": (set_entry("dense", dtype="int8"), "its shape and kind take"),
    "unknown dtype": (set_entry("dense", dtype="complex64"), "no dtype 'complex64'"),
    "unhashable dtype": (set_entry("dense", dtype=[]), "no dtype"),
    "unknown kind": (set_entry("dense", kind="zip"), "unknown kind"),
    "dense with kept": (set_entry("dense", kept=5), "unexpected keys"),
    "upper-case checksum": (set_entry("sparse", checksum="A" * 32), "checksum is wrong"),
    "no checksum": (lambda header: entry_of(header, "dense").pop("checksum"), "unexpected keys"),
    "repeated name": (set_entry("empty", name="dense"), "repeated"),
    "empty name": (set_entry("dense", name=""), "repeated"),
    "wrong order": (set_entry("dense", name="z"), "out of order"),
    "section is a list": (lambda header: header["sections"].append([]), "has no name"),
    "alias of nothing": (lambda header: header["aliases"].update(a="b"), "names no section"),
    "alias over a section": (lambda header: header["aliases"].update(dense="flags"), "section's"),
    "alias of an alias": (lambda header: header["aliases"].update(a="tied"), "names no section"),
    "alias of a list": (lambda header: header["aliases"].update(a=[]), "names no section"),
    "aliases is a list": (lambda header: header.update(aliases=[]), "aliases is not an object"),
    "another key": (lambda header: header.update(extra=1), "other keys"),
    "no sections": (lambda header: header.pop("sections"), "other keys"),
    "sections is an object": (lambda header: header.update(sections={}), "not a list"),
    "metadata is a list": (lambda header: header.update(metadata=[]), "metadata is not an object"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_each_rule_of_the_header(edit: str, tmp_path: Path) -> None:
    change, reason = EDITS[edit]
    header, body = split(data_of(example()))
    assert snapshot(decode(join(header, body))) == snapshot(decode(data_of(example())))
    change(header)
    path = tmp_path / "hostile.regrow"
    path.write_bytes(join(header, body))
    with pytest.raises(RegrowError, match=r"hostile\.regrow") as caught:
        read(path)
    assert reason in str(caught.value)


def rechecked(name: str, change: Callable[[bytearray], None]) -> bytes:
    """The example with the bytes of a section changed and all checksums right."""
    header, body = split(data_of(example()))
    entry = entry_of(header, name)
    start, stop = entry["offset"], entry["offset"] + entry["length"]
    part = bytearray(body[start:stop])
    change(part)
    entry["checksum"] = digest(bytes(part)).hex()
    return join(header, body[:start] + bytes(part) + body[stop:])


def test_each_rule_of_the_sections() -> None:
    def more_kept(part: bytearray) -> None:
        part[0] |= 1

    def unused_bit(part: bytearray) -> None:
        part[4] ^= 0b1000_0100  # entry 34 is the last; bit 39 is beyond it

    def bad_bool(part: bytearray) -> None:
        part[-1] = 2

    with pytest.raises(RegrowError, match="'sparse': its mask keeps 3, not 2"):
        decode(rechecked("sparse", more_kept))
    with pytest.raises(RegrowError, match="'sparse': bits after the end of its mask"):
        decode(rechecked("sparse", unused_bit))
    with pytest.raises(RegrowError, match="'flags': a boolean is neither 0 nor 1"):
        decode(rechecked("flags", bad_bool))
    header, body = split(data_of(example()))
    padded = bytearray(body)
    gap = entry_of(header, "dense")["length"]
    padded[gap] = 1
    with pytest.raises(RegrowError, match="padding before byte"):
        decode(join(header, bytes(padded)))
    nothing = data_of(Contents(()))
    assert nothing.endswith(b"\0")
    with pytest.raises(RegrowError, match="padding at the end"):
        decode(nothing[:-1] + b"\1")


def nested(depth: int) -> bytes:
    inner = b"[" * depth + b"]" * depth
    return b'{"aliases":{},"metadata":{"a":' + inner + b'},"sections":[]}'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"aliases":{},"metadata":{},"sections":[]} ',
        b'{"metadata":{},"aliases":{},"sections":[]}',
        b'{"aliases":{},"aliases":{},"metadata":{},"sections":[]}',
        b'{"aliases":{},"metadata":{"a":NaN},"sections":[]}',
        b'{"aliases":{},"metadata":{"a":1e999},"sections":[]}',
        b'{"aliases":{},"metadata":{"a":"\\ud800"},"sections":[]}',
        '{"aliases":{},"metadata":{},"sections":[]}'.encode("utf-16"),
        nested(32),
        nested(100_000),
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_headers_that_are_not_canonical(raw: bytes) -> None:
    assert decode(join(nested(31), b"")).sections == ()
    with pytest.raises(RegrowError):
        decode(join(raw, b""))


def test_a_header_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(example())
    monkeypatch.setattr(container, "HEADER_LIMIT", 200)
    with pytest.raises(RegrowError, match="too long"):
        decode(data)
    with pytest.raises(RegrowError, match="more than 200 bytes"):
        data_of(example())
