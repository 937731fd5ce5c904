"""Files that were changed on purpose, with right checksums, so that the changes get past them.

    python runtime/tests/fuzz.py --cases 10000 --seed 0

Every case must end in a RuntimeFileError that names the file, or in contents that are well formed
and written and read again as they are. Anything else is raised, with the seed of the case.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import reference
from file_example import example, snapshot
from regrow_runtime.check_graph import shapes_of
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import Array, Contents, decode, encode, read, sizes

MEMORY_LIMIT = 2**24
SECONDS_LIMIT = 5.0

JUNK: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 8, 9, 16, 63, 64, 255, 2**15, 2**24, 2**31, 2**32, 2**62, 2**63 - 1),
    *(2**63, 2**64, 10**40, True, False, None, 0.0, 1.0, -0.5, 1e300, 1e-320, "", "x", "a", "w"),
    *("float32", "float16", "bfloat16", "int8", "uint8", "bool", "int64", "conv2d", "relu"),
    *("concat", "add", "conv.weight", "fc.weight", "é", "00" * 16, [], [0], [1], [2, 2], [-1]),
    *([2**31, 2**31], [2**62, 0], [1] * 33, [[1]], [True], ["x"], {}, {"a": 1}, {"kept": 1}),
]

Header = Any
Bodies = list[bytes]


def pick(rng: np.random.Generator, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    keys: Any = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        found += [(value, key), *places(value[key])]
    return found


def change_header(rng: np.random.Generator, header: Header) -> None:
    """Any value anywhere in the header becomes another, goes, or is doubled."""
    parts = [header, header.get("sections"), header.get("sections"), header.get("graph")]
    part = pick(rng, [part for part in parts if places(part)])
    container, key = pick(rng, places(part))
    action = rng.integers(8)
    if action == 0:
        del container[key]
    elif action == 1:
        other, at = pick(rng, places(part))
        container[key] = copy.deepcopy(other[at])
    elif action == 2 and isinstance(container, list):
        container.insert(int(rng.integers(len(container) + 1)), copy.deepcopy(container[key]))
    elif action == 3 and isinstance(container, dict):
        container[pick(rng, ["kept", "positions", "scales", "levels", "origin", "more", ""])] = (
            pick(rng, JUNK)
        )
    elif action <= 5 and type(container[key]) is int:
        container[key] += int(rng.integers(-3, 4))
    else:
        container[key] = copy.deepcopy(pick(rng, JUNK))


def change_body(rng: np.random.Generator, header: Header, bodies: Bodies) -> None:
    """Bytes of a section, which its checksum then vouches for."""
    index = int(rng.integers(len(bodies)))
    data = bytearray(bodies[index])
    for _ in range(rng.integers(1, 4)):
        if not data:
            break
        at = int(rng.integers(len(data)))
        action = rng.integers(4)
        if action == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif action == 1:
            data[at] = int(rng.integers(256))
        elif action == 2:
            data[at : at + 8] = bytes(rng.integers(0, 256, len(data[at : at + 8]), np.uint8))
        else:
            data[at:] = bytes([pick(rng, [0, 255])]) * len(data[at:])
    bodies[index] = bytes(data)
    header["sections"][index]["checksum"] = reference.digest(bodies[index]).hex()


def change_length(rng: np.random.Generator, header: Header, bodies: Bodies) -> None:
    """A stream gets shorter or longer, and the header says so."""
    index = int(rng.integers(len(bodies)))
    entry, data = header["sections"][index], bytearray(bodies[index])
    stream = pick(rng, [key for key in ("positions", "values", "scales") if key in entry])
    at = sum(entry.get(key, 0) for key in ("positions", "values", "scales")[: STREAM_ENDS[stream]])
    by = min(int(rng.integers(1, 6)), entry[stream])
    if rng.random() < 0.5:
        del data[at - by : at]
        entry[stream] -= by
    else:
        data[at:at] = bytes(rng.integers(0, 256, by, np.uint8))
        entry[stream] += by
    bodies[index] = bytes(data)
    entry["checksum"] = reference.digest(bodies[index]).hex()


STREAM_ENDS = {"positions": 1, "values": 2, "scales": 3}


def change_text(rng: np.random.Generator, raw: bytes) -> bytes:
    """The header's JSON as bytes: cut, doubled, or with other bytes."""
    text = bytearray(raw)
    start, end = sorted(int(at) for at in rng.integers(len(text), size=2))
    action = rng.integers(4)
    if action == 0:
        del text[start : min(end, start + 20)]
    elif action == 1:
        text[start:start] = text[start : min(end, start + 40)]
    elif action == 2:
        text[start] = int(rng.integers(256))
    else:
        text[start:start] = pick(
            rng, [b"[" * 5000, b"9" * 5000, b"NaN", b" ", b"\\ud800", b"1e999"]
        )
    return bytes(text)


def changed(rng: np.random.Generator, data: bytes) -> bytes:
    """A hostile relative of a file."""
    header, bodies = reference.split(data)
    kind = rng.integers(10)
    if kind == 0:
        return reference.join(change_text(rng, reference.dump(header)), bodies)
    if kind == 1:
        stored = bytearray(data[48 : 48 + int.from_bytes(data[24:28], "little")])
        stored[int(rng.integers(len(stored)))] ^= 1 << int(rng.integers(8))
        return reference.join(header, bodies, stored=bytes(stored))
    if kind == 2:
        anywhere = bytearray(data)
        anywhere[int(rng.integers(len(data)))] = int(rng.integers(256))
        return bytes(anywhere)
    for _ in range(rng.integers(0, 3)):
        pick(rng, [change_body, change_length])(rng, header, bodies)
    for _ in range(rng.integers(0, 3)):
        change_header(rng, header)
    return reference.join(header, bodies)


def originals() -> list[bytes]:
    """What is changed: the example, and networks with one section of a kind."""
    rng = np.random.default_rng(0)
    keep = rng.random((12, 10, 3, 3)) < 0.1
    alone = []
    for dtype, values in (
        ("float32", rng.normal(size=keep.shape).astype(np.float32)),
        ("float16", rng.normal(size=keep.shape).astype(np.float16)),
        ("int8", rng.integers(-127, 128, keep.shape).astype(np.int8)),
        ("int64", rng.integers(-9, 9, keep.shape)),
    ):
        scales = np.ones(12, np.float32) if dtype == "int8" else None
        origin = "int64" if dtype == "int64" else "float32"
        array = Array(np.where(keep, values, 0).astype(values.dtype), dtype, keep, scales, origin)
        alone.append(Contents({"w": array}))
    few = np.where(keep, rng.integers(-7, 8, keep.shape), 0).astype(np.int8)
    levels = np.linspace(0.1, 0.7, 7, dtype=np.float32)
    alone.append(Contents({"w": Array(few, "int8", keep, levels=levels)}))
    return [encode(contents) for contents in (example(), example(), *alone)]


def check(data: bytes, where: Path | None) -> str:
    """How reading ends: "read", or the kind of refusal.

    Raises:
        AssertionError: it ends in another way.
    """
    start = time.perf_counter()
    try:
        if where is None:
            contents = decode(data, memory_limit=MEMORY_LIMIT)
        else:
            where.write_bytes(data)
            contents = read(where, memory_limit=MEMORY_LIMIT)
    except RuntimeFileError as error:
        message = str(error)
        assert message.startswith("the packed data" if where is None else str(where)), message
        assert len(message) > 40
        return "checksum" if "checksum is wrong" in message else "refused"
    finally:
        seconds = time.perf_counter() - start
        assert seconds < SECONDS_LIMIT, f"it took {seconds:.1f} s"
    for array in contents.arrays.values():
        assert array.keep is None or not array.values[~array.keep].any()
    if contents.graph is not None:
        shapes_of(contents.graph, contents.arrays)
    again = encode(contents)
    assert snapshot(decode(again)) == snapshot(contents)
    # Coded streams have one spelling, so that what is coded again is what stood there.
    stored = {entry["checksum"]: entry for entry in reference.split(again)[0]["sections"]}
    for entry in reference.split(data)[0]["sections"]:
        other = next((one for one in stored.values() if one["arrays"] == entry["arrays"]), None)
        if other is not None and lengths(other) == lengths(entry):
            assert other["checksum"] == entry["checksum"]
    sizes(contents)
    return "read"


def lengths(entry: Any) -> list[Any]:
    return [entry.get(key) for key in ("kept", "positions", "values", "scales", "dtype")]


def fuzz(cases: int, seed: int) -> Counter[str]:
    """How many of the cases ended how; raises at the first that ends badly."""
    files = originals()
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case in range(cases):
            rng = np.random.default_rng([seed, case])
            try:
                data = changed(rng, pick(rng, files))
                where = Path(folder) / "hostile.regrow" if case % 10 == 0 else None
                ends[check(data, where)] += 1
            except Exception as error:
                raise AssertionError(f"case {case} of seed {seed} ended badly") from error
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ends = fuzz(options.cases, options.seed)
    sys.stdout.write(json.dumps(ends, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
