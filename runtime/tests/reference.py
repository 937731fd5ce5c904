"""A reader of format 2 in plain Python, written from docs/format-2.md alone; slow, for tests.

Also the layout's other direction (`split`, `join`), and what a stream costs in theory.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from typing import Any

PRELUDE = 48
ITEM = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4}
ITEM |= {"int16": 2, "int8": 1, "uint8": 1, "bool": 1}
FLOATS = {"float32": (8, 23), "float16": (5, 10), "bfloat16": (8, 7)}
LOG = [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11]
LOG += [12, 12, 13, 13, 13, 14, 14, 15, 15, 15, 16]


class Model:
    def __init__(self) -> None:
        self.p, self.seen = 2**21, 0

    def zero(self) -> int:
        return min(max(self.p >> 7, 24), 32744)

    def learn(self, bit: int) -> None:
        step = 2**17 // (2 * self.seen + 3)
        if bit:
            self.p -= self.p * step >> 16
        else:
            self.p += (2**22 - 1 - self.p) * step >> 16
        self.seen = min(self.seen + 1, 1023)


class Stream:
    """Reads bits; `cost` is what they should cost, in bits, by the models' probabilities."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.range, self.cost = data, 4, 0xFFFFFFFF, 0.0
        self.code = int.from_bytes(data[:4], "big")
        assert len(data) >= 4
        assert self.code < self.range

    def renormalise(self) -> None:
        while self.range < 2**24:
            self.range <<= 8
            self.code = self.code << 8 | self.data[self.at]
            self.at += 1

    def bit(self, model: Model) -> int:
        zero = model.zero()
        bound = (self.range >> 15) * zero
        bit = int(self.code >= bound)
        if bit:
            self.code -= bound
            self.range -= bound
        else:
            self.range = bound
        self.cost -= math.log2((2**15 - zero if bit else zero) / 2**15)
        model.learn(bit)
        self.renormalise()
        return bit

    def raw(self, count: int) -> int:
        value = 0
        for start in range(0, count, 8):
            bits = min(8, count - start)
            self.range >>= bits
            part = self.code // self.range
            assert part < 2**bits
            self.code -= part * self.range
            value = value << bits | part
            self.renormalise()
        self.cost += count
        return value

    def tree(self, models: list[Model], bits: int) -> int:
        node = 1
        for _ in range(bits):
            node = 2 * node + self.bit(models[node])
        return node - 2**bits

    def finish(self) -> None:
        assert self.at == len(self.data)
        assert self.code == 0


def models(*counts: int) -> Any:
    first, *rest = counts
    return [models(*rest) if rest else Model() for _ in range(first)]


def log2_16(n: int) -> int:
    whole = n.bit_length() - 1
    five = (n >> (whole - 5) if whole >= 5 else n << (5 - whole)) & 31
    return 16 * whole + LOG[five]


def drawn(hits: int, tries: int, every: int) -> int:
    shift = min(-every // 16, 20)
    part = max(0, every + 16 * shift + 16)
    imagined = (384 * (16 + part) // 32) >> shift
    return log2_16(64 * min(hits, 2**24) + imagined + 1) - log2_16(tries + 6) - 96


def mask(stream: Stream, rows: int, columns: int, inner: int) -> list[int]:
    whole, within = models(64), models(6, 4, 64)
    keep = [0] * (rows * columns * inner)
    column_hits = [0] * columns
    all_hits = all_tries = 0
    for row in range(rows):
        every = log2_16(2 * all_hits + 1) - log2_16(2 * all_tries + 2)
        row_hits = 0
        for column in range(columns):
            level = drawn(row_hits, column, every)
            if rows >= 8:
                level += drawn(column_hits[column], row, every) - every
            hit = stream.bit(whole[min(max(int(-level / 3), 0), 63)])
            row_hits += hit
            column_hits[column] += hit
            all_hits += hit
            all_tries += 1
            start = (row * columns + column) * inner
            if hit and inner == 1:
                keep[start] = 1
            elif hit:
                full, seen = min(max(int(-level / 16), 0), 5), 0
                for i in range(inner):
                    if i == inner - 1 and seen == 0:
                        bit = 1
                    else:
                        bit = stream.bit(within[full][min(seen, 3)][i])
                    seen += bit
                    keep[start + i] = bit
    stream.finish()
    return keep


def values(stream: Stream, dtype: str, counts: list[int]) -> list[int]:
    """As unsigned integers of the item's size; `counts` are the kept entries of each row."""
    found, sign = [], Model()
    if dtype == "int8":
        trees = models(8, 128)
        for count in counts:
            tree = trees[min(7, count.bit_length() - 1)] if count else []
            for _ in range(count):
                size = stream.tree(tree, 7)
                negative = size != 0 and stream.bit(sign)
                found.append(256 - size if negative else size)
    else:
        e, f = FLOATS[dtype]
        exponents, leading = models(2**e), models(2**e, 16)
        for _ in range(sum(counts)):
            negative = stream.bit(sign)
            exponent = stream.tree(exponents, e)
            high = stream.tree(leading[exponent], 4)
            low = stream.raw(f - 4)
            found.append(negative << (e + f) | exponent << f | high << (f - 4) | low)
    stream.finish()
    return found


def grid(shapes: list[list[int]]) -> tuple[int, int, int]:
    shape = shapes[0]
    if len(shapes) > 1 or len(shape) < 2:
        return 1, sum(map(math.prod, shapes)), 1
    inner = math.prod(shape[2:])
    inner = inner if 1 <= inner <= 64 else 1
    return shape[0], math.prod(shape[1:]) // inner, inner


def numbers(data: bytes, dtype: str, counts: list[int]) -> list[int]:
    """A stream of values, raw or coded."""
    size = ITEM[dtype]
    if len(data) == size * sum(counts):
        return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]
    assert len(data) < size * sum(counts)
    return values(Stream(data), dtype, counts)


def section(entry: dict[str, Any], body: bytes) -> dict[str, Any]:
    """By name: dtype, origin, shape, and the bytes of values, mask, scales and levels (or None)."""
    assert digest(body).hex() == entry["checksum"]
    shapes, dtype = [shape for _, shape in entry["arrays"]], entry["dtype"]
    count = sum(map(math.prod, shapes))
    rows, columns, inner = grid(shapes)
    at, keep = entry.get("positions", 0), None
    if "kept" in entry:
        if entry["kept"] in (0, count):
            keep = [int(entry["kept"] > 0)] * count
        elif at == -(-count // 8):
            keep = [body[i // 8] >> i % 8 & 1 for i in range(count)]
        else:
            keep = mask(Stream(body[:at]), rows, columns, inner)
        assert sum(keep) == entry["kept"]
    length = count // rows if rows else 0
    per_row = [
        length if keep is None else sum(keep[row * length : (row + 1) * length])
        for row in range(rows)
    ]
    found = iter(numbers(body[at : at + entry["values"]], dtype, per_row))
    item = ITEM[dtype]
    bits = [next(found) if keep is None or keep[i] else 0 for i in range(count)]
    scales = None
    if "scales" in entry:
        stored = numbers(
            body[at + entry["values"] :], "float32", [entry.get("levels", shapes[0][0])]
        )
        scales = b"".join(one.to_bytes(4, "little") for one in stored)
    arrays, start = {}, 0
    for name, shape in entry["arrays"]:
        end = start + math.prod(shape)
        arrays[name] = {
            "dtype": dtype,
            "origin": entry.get("origin", dtype),
            "shape": tuple(shape),
            "values": b"".join(one.to_bytes(item, "little") for one in bits[start:end]),
            "keep": None if keep is None else bytes(keep),
            "scales": None if "levels" in entry else scales,
            "levels": scales if "levels" in entry else None,
        }
        start = end
    return arrays


def read(data: bytes) -> dict[str, Any]:
    """Arrays by name, graph and metadata, as plain values."""
    header, bodies = split(data)
    arrays: dict[str, Any] = {}
    for entry, body in zip(header["sections"], bodies, strict=True):
        arrays |= section(entry, body)
    arrays |= {alias: arrays[name] for alias, name in header["aliases"].items()}
    return {"arrays": arrays, "graph": header["graph"], "metadata": header["metadata"]}


def split(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The header and the bytes of each section."""
    stored, whole = struct.unpack_from("<II", data, 24)
    raw = zlib.decompress(data[PRELUDE : PRELUDE + stored], wbits=-15)
    assert len(raw) == whole
    assert digest(data[:32] + data[PRELUDE : PRELUDE + stored]) == data[32:PRELUDE]
    header, bodies, at = json.loads(raw), [], PRELUDE + stored
    for entry in header["sections"]:
        length = entry.get("positions", 0) + entry["values"] + entry.get("scales", 0)
        bodies.append(data[at : at + length])
        at += length
    assert at == len(data)
    return header, bodies


def join(
    header: Any,
    bodies: list[bytes],
    *,
    stored: bytes | None = None,
    whole: int | None = None,
    version: int = 2,
    flags: int = 0,
) -> bytes:
    """A file whose checksum over the header is right, whatever the header says.

    Args:
        header: a value, or the JSON itself.
        bodies: of the sections.
        stored: the deflated header, if it shall be another.
        whole: the length that it is said to inflate to.
        version, flags: of the prelude.
    """
    raw = header if isinstance(header, bytes) else dump(header)
    if stored is None:
        coder = zlib.compressobj(wbits=-15)
        stored = coder.compress(raw) + coder.flush()
    body = b"".join(bodies)
    total = PRELUDE + len(stored) + len(body)
    whole = len(raw) if whole is None else whole
    fields = struct.pack("<8sIIQII", b"\x89regrow\n", version, flags, total, len(stored), whole)
    return fields + digest(fields + stored) + stored + body


def dump(header: Any) -> bytes:
    return json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
