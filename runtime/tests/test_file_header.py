"""Headers that are not in the one form in which regrow writes them."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest

from file_example import example
from reference import join
from regrow_runtime import header as header_module
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import decode, encode

EMPTY = b'{"aliases":{},"graph":null,"metadata":{},"sections":[]}'


def nested(depth: int) -> bytes:
    return EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":' + b"[" * depth + b"]" * depth + b"}")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        EMPTY + b" ",
        EMPTY.replace(b":", b": "),
        b'{"graph":null,"aliases":{},"metadata":{},"sections":[]}',
        EMPTY.replace(b'"graph"', b'"aliases":{},"graph"'),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":1,"a":2}'),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":NaN}'),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":-Infinity}'),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":1e999}'),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":1.00}'),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":-0}'),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":' + b"9" * 100_000 + b"}"),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":0.' + b"1" * 1_000_000 + b"}"),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":"\\ud800"}'),
        EMPTY.replace(b'"metadata":{}', b'"metadata":{"a":"\\u00e9"}'),
        EMPTY.decode().encode("utf-16"),
        nested(32),
        nested(100_000),
        b"[" * 1_000_000,
    ],
    ids=lambda raw: repr(raw[:60]),
)
def test_headers_that_are_not_canonical(raw: bytes) -> None:
    for fine in (EMPTY, nested(31)):
        assert decode(join(fine, [])).arrays == {}
    with pytest.raises(RuntimeFileError, match=r"canonical JSON|nested deeper|other keys"):
        decode(join(raw, []))


def deflated(raw: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(raw) + coder.flush()


@pytest.mark.parametrize(
    ("stored", "whole"),
    [
        (b"", len(EMPTY)),
        (EMPTY, len(EMPTY)),
        (deflated(EMPTY)[:-1], len(EMPTY)),
        (deflated(EMPTY) + b"\0", len(EMPTY)),
        (deflated(EMPTY), len(EMPTY) - 1),
        (deflated(EMPTY), len(EMPTY) + 1),
        (deflated(EMPTY), 0),
        (zlib.compress(EMPTY), len(EMPTY)),
        (deflated(bytes(2**28)), 2**22),
        (deflated(bytes(2**28)), 0),
    ],
    ids=range(10),
)
def test_headers_that_do_not_inflate_as_they_say(stored: bytes, whole: int) -> None:
    data = join(b"", [], stored=stored, whole=whole)
    tracemalloc.start()
    with pytest.raises(RuntimeFileError, match="does not inflate to"):
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24  # and not the 256 MiB of the last two


def test_a_header_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (
        join(EMPTY, [], whole=2**22 + 1),
        join(b"", [], stored=bytes(2**22 + 1), whole=10),
    ):
        with pytest.raises(RuntimeFileError, match="is too long"):
            decode(data)
    monkeypatch.setattr(header_module, "LIMIT", 200)
    with pytest.raises(RuntimeFileError, match="more than 200 bytes"):
        encode(example())


def test_a_header_of_many_objects_takes_bounded_memory_and_time() -> None:
    raw = EMPTY.replace(b"[]", b"[" + b"[]," * (2**22 // 3 - 30) + b"[]]")
    tracemalloc.start()
    with pytest.raises(RuntimeFileError, match="a section is not an object"):
        decode(join(raw, []))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**28
