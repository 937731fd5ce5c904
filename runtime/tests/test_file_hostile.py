from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fuzz
import reference
from file_example import example, snapshot
from reference import digest, dump, join, split
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import Array, Contents, decode, encode, read

Header = dict[str, Any]
DATA = encode(example())


def test_every_truncation_and_extension_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.regrow"
    for length in range(len(DATA)):
        with pytest.raises(RuntimeFileError):
            decode(DATA[:length])
        if length % 16 == 0:
            path.write_bytes(DATA[:length])
            with pytest.raises(RuntimeFileError, match=r"m\.regrow"):
                read(path)
    for tail in (b"\0", bytes(64), DATA):
        with pytest.raises(RuntimeFileError, match="it should have"):
            decode(DATA + tail)


def test_every_changed_byte_is_refused() -> None:
    for position in range(len(DATA)):
        for flip in (1, 128):
            changed = bytearray(DATA)
            changed[position] ^= flip
            with pytest.raises(RuntimeFileError):
                decode(bytes(changed))


def test_random_damage_in_several_places_is_refused() -> None:
    rng = np.random.default_rng(0)
    for _ in range(600):
        changed = bytearray(DATA)
        for position in rng.integers(len(DATA), size=rng.integers(2, 12)):
            changed[position] = rng.integers(256)
        start, stop = sorted(rng.integers(len(DATA), size=2))
        kind = rng.integers(3)
        if kind == 1:
            del changed[start:stop]
        elif kind == 2:
            changed[start:stop] = changed[start:stop][::-1]
        if bytes(changed) != DATA:
            with pytest.raises(RuntimeFileError):
                decode(bytes(changed))


def test_changes_behind_right_checksums() -> None:
    """A few hundred of what `python runtime/tests/fuzz.py` does by the ten thousands."""
    ends = fuzz.fuzz(500, 0)
    assert ends["refused"] > 300
    assert ends["read"] > 10


def entry_of(header: Header, name: str) -> Header:
    return next(
        entry for entry in header["sections"] if any(one[0] == name for one in entry["arrays"])
    )


def put(name: str, /, **values: Any) -> Callable[[Header], None]:
    return lambda header: entry_of(header, name).update(values)


def drop(name: str, key: str) -> Callable[[Header], None]:
    return lambda header: entry_of(header, name).pop(key)


def reshape(name: str, *shape: Any) -> Callable[[Header], None]:
    """Another shape, in a file without a graph, which would not take it."""

    def change(header: Header) -> None:
        entry_of(header, name)["arrays"][0][1] = list(shape)
        header["graph"] = None

    return change


def rename(name: str, to: Any) -> Callable[[Header], None]:
    return lambda header: entry_of(header, name)["arrays"][0].__setitem__(0, to)


def node(index: int, /, **values: Any) -> Callable[[Header], None]:
    return lambda header: header["graph"]["nodes"][index].update(values)


def swap_nodes(header: Header) -> None:
    header["graph"]["nodes"][1:3] = header["graph"]["nodes"][2:0:-1]


EDITS: dict[str, tuple[Callable[[Header], Any], str]] = {
    "another key": (lambda header: header.update(more=1), "the header has other keys"),
    "no sections": (lambda header: header.pop("sections"), "the header has other keys"),
    "sections is an object": (lambda header: header.update(sections={}), "not a list"),
    "metadata is a list": (lambda header: header.update(metadata=[]), "metadata is not an object"),
    "large integer": (lambda header: header.update(metadata={"a": 2**63}), "more than 64 bits"),
    "aliases is a list": (lambda header: header.update(aliases=[]), "aliases is not an object"),
    "alias of nothing": (lambda header: header["aliases"].update(a="b"), "names no array"),
    "alias of an alias": (lambda header: header["aliases"].update(a="tied"), "names no array"),
    "alias of a list": (lambda header: header["aliases"].update(a=[]), "names no array"),
    "alias over an array": (lambda header: header["aliases"].update(half="brain"), "is an array's"),
    "section is a list": (lambda header: header["sections"].append([]), "not an object"),
    "no arrays": (put("half", arrays=[]), "does not list names"),
    "arrays is an object": (put("half", arrays={}), "does not list names"),
    "array without a shape": (put("half", arrays=[["half"]]), "does not list names"),
    "array of a number": (put("half", arrays=[3]), "does not list names"),
    "empty name": (rename("half", ""), "does not list names"),
    "name is a list": (rename("half", ["half"]), "does not list names"),
    "repeated name": (rename("half", "brain"), "'brain' is repeated"),
    "repeated in a section": (rename("norm.bias", "norm.weight"), "'norm.weight' is repeated"),
    "unknown key": (put("half", more=1), "unexpected keys"),
    "no checksum": (drop("half", "checksum"), "unexpected keys"),
    "kept without positions": (put("half", kept=1), "unexpected keys"),
    "positions without kept": (drop("conv.weight", "kept"), "unexpected keys"),
    "unknown dtype": (put("half", dtype="complex64"), "no dtype 'complex64'"),
    "unhashable dtype": (put("half", dtype=[]), "no dtype"),
    "unhashable origin": (put("half", origin=[]), "origin is not a dtype"),
    "origin as the dtype": (put("half", origin="float16"), "cannot come from float16"),
    "integer origin": (put("half", origin="int8"), "cannot come from int8"),
    "origin of integers": (put("norm.steps", origin="float32"), "cannot come from float32"),
    "scales without origin": (drop("dense", "origin"), "cannot come from int8"),
    "scales of floats": (put("half", scales=0), "float16 values with scales"),
    "scales too many": (put("dense", scales=33), "its scales take another length"),
    "scales of none": (put("dense", scales=0), "its scales take another length"),
    "scales of a scalar": (reshape("dense"), "take another length"),
    "levels without scales": (drop("few", "scales"), "cannot come from"),
    "levels of floats": (put("half", levels=1), "levels without scales"),
    "no levels": (put("few", levels=0), "0 levels, of at most 127"),
    "too many levels": (put("few", levels=128), "128 levels, of at most 127"),
    "levels of another length": (put("few", levels=2), "its scales take another length"),
    "several arrays with scales": (put("norm.bias", scales=0), "several arrays"),
    "several arrays with a mask": (put("norm.bias", kept=0, positions=0), "several arrays"),
    "overflow": (reshape("half", 2**32, 2**32), "too large"),
    "overflow hidden by a zero": (reshape("empty", 0, 2**62, 2**62), "too large"),
    "negative extent": (reshape("half", -480), "bad extent"),
    "two negative extents": (reshape("half", -12, -40), "bad extent"),
    "boolean extent": (reshape("flags", True, 3), "bad extent"),
    "float extent": (reshape("flags", 3.0), "bad extent"),
    "high rank": (reshape("norm.steps", *[1] * 33), "no short list"),
    "negative length": (put("half", values=-1), "values is not a count"),
    "boolean length": (put("half", values=True), "values is not a count"),
    "float length": (put("half", values=8.0), "values is not a count"),
    "float kept": (put("conv.weight", kept=126.0), "kept is not a count"),
    "longer values": (put("half", values=961), "960 bytes of values take another"),
    "no values": (put("half", values=0), "960 bytes of values take another"),
    "short integers": (put("norm.steps", values=7), "8 bytes of values take another"),
    "kept more than there are": (put("conv.weight", kept=865), "more entries kept"),
    "kept all": (put("conv.weight", kept=864), "positions of 864 in 864"),
    "kept none": (put("conv.weight", kept=0), "0 bytes of values"),
    "kept more": (put("conv.weight", kept=127), "keep 126 entries, not 127"),
    "kept fewer": (put("conv.weight", kept=125), "keep 126 entries, not 125"),
    "long positions": (put("conv.weight", positions=109), "positions of 126 in 864 entries"),
    "no positions": (put("conv.weight", positions=0), "positions of 126 in 864 entries"),
    "another length": (put("conv.weight", positions=76), "the sections end at byte"),
    "upper-case checksum": (put("half", checksum="A" * 32), "its checksum is wrong"),
    "short checksum": (put("half", checksum="00"), "the checksum is not one"),
    "checksum is a list": (put("half", checksum=[0] * 32), "the checksum is not one"),
    "no grid": (reshape("conv.weight", 864), "its positions are damaged"),
    "another grid": (reshape("conv.weight", 6, 16, 3, 3), "its positions are damaged"),
    "graph is a list": (lambda header: header.update(graph=[]), "the graph has other keys"),
    "graph lacks nodes": (lambda header: header["graph"].pop("nodes"), "the graph has other keys"),
    "inputs is an object": (lambda header: header["graph"].update(inputs={}), "other keys"),
    "short input": (lambda header: header["graph"].update(inputs=[["x"]]), "a name, a shape"),
    "shape is a string": (
        lambda header: header["graph"].update(inputs=[["x", "3", "float32"]]),
        "where a list belongs",
    ),
    "output is a list": (lambda header: header["graph"].update(outputs=[[]]), "no node gives"),
    "node is a list": (lambda header: header["graph"]["nodes"].append([]), "node 5 is not an"),
    "node has another key": (node(2, code="print()"), "node 2 has other keys"),
    "node without an op": (lambda header: header["graph"]["nodes"][2].pop("op"), "other keys"),
    "empty module": (node(2, module=""), "node 2: module is empty"),
    "empty arrays": (node(2, arrays={}), "node 2: arrays is empty"),
    "attributes is a list": (node(2, attributes=[1]), "node 2: attributes is empty or of another"),
    "inputs is a string": (node(2, inputs="b"), "where a list belongs"),
    "unknown op": (node(2, op="exec"), "node 2: unknown operation 'exec'"),
    "wrong order": (swap_nodes, "node 1 (relu of ''): no input and no node before it gives 'b'"),
    "reads itself": (node(2, inputs=["c"]), "node 2 (relu of ''): no input"),
    "reads a later one": (node(2, inputs=["d"]), "node 2 (relu of ''): no input"),
    "array that is not stored": (node(4, arrays={"weight": "w"}), "'w' is not stored"),
    "array of integers": (node(4, arrays={"weight": "norm.steps"}), "'norm.steps' is int64"),
    "array of another shape": (node(4, arrays={"weight": "tied"}), "does not fit its input"),
    "attribute is a boolean": (
        lambda header: header["graph"]["nodes"][0]["attributes"].update(groups=True),
        "its groups is not a positive integer",
    ),
    "value is huge": (
        lambda header: header["graph"].update(inputs=[["x", [2**31 - 1] * 8, "float32"]]),
        "is too large",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_each_rule_of_the_header(edit: str, tmp_path: Path) -> None:
    change, reason = EDITS[edit]
    header, bodies = split(DATA)
    assert snapshot(decode(join(header, bodies))) == snapshot(example())
    change(header)
    path = tmp_path / "hostile.regrow"
    path.write_bytes(join(header, bodies))
    with pytest.raises(RuntimeFileError, match=r"hostile\.regrow cannot be used") as caught:
        read(path)
    assert reason in str(caught.value)


def rechecked(name: str, change: Callable[[bytearray, Header], None]) -> bytes:
    """The example with the bytes of a section changed and all checksums right."""
    header, bodies = split(DATA)
    entry = entry_of(header, name)
    index = header["sections"].index(entry)
    part = bytearray(bodies[index])
    change(part, entry)
    entry["checksum"] = digest(bytes(part)).hex()
    return join(header, [*bodies[:index], bytes(part), *bodies[index + 1 :]])


def test_each_rule_of_the_sections() -> None:
    def bad_bool(part: bytearray, entry: Header) -> None:
        part[-1] = 2

    def short(part: bytearray, entry: Header) -> None:
        del part[entry["positions"] - 1]
        entry["positions"] -= 1

    def longer(part: bytearray, entry: Header) -> None:
        part.insert(entry["positions"], 0)
        entry["positions"] += 1

    def values(part: bytearray, entry: Header) -> None:
        part[-1] ^= 1

    def scales(part: bytearray, entry: Header) -> None:
        part[-1] ^= 1

    def random(part: bytearray, entry: Header) -> None:
        part[4 : entry["positions"]] = bytes(range(4, entry["positions"]))

    for name, change, reason in (
        ("flags", bad_bool, "section 'flags': a boolean is neither 0 nor 1"),
        ("conv.weight", short, "section 'conv.weight': its positions are damaged: it ends too"),
        ("conv.weight", longer, "section 'conv.weight': its positions are damaged: bytes are"),
        ("conv.weight", random, "section 'conv.weight': its positions are damaged:"),
        ("conv.weight", values, "section 'conv.weight': its values are damaged: no encoder"),
        ("fc.weight", scales, "section 'fc.weight': its scales are damaged: no encoder"),
        ("norm.bias", values, "section 'norm.bias' and 4 more: its values are damaged: no enc"),
    ):
        with pytest.raises(RuntimeFileError, match="the packed data cannot be used") as caught:
            decode(rechecked(name, change))
        assert reason in str(caught.value)


def test_raw_positions_are_checked_too() -> None:
    keep = np.arange(12) % 3 == 0
    data = encode(Contents({"a": Array(np.where(keep, 1, 0), "int64", keep, origin="int64")}))
    header, (body,) = split(data)
    assert header["sections"][0]["positions"] == 2
    for first, second, reason in (
        (0x49, 0x12, "bits after"),
        (0x4B, 0x02, "keep 5 entries, not 4"),
    ):
        changed = bytes([first, second]) + body[2:]
        header["sections"][0]["checksum"] = digest(changed).hex()
        with pytest.raises(RuntimeFileError, match=reason):
            decode(join(header, [changed]))


def test_the_memory_of_all_arrays_counts_together() -> None:
    keep = np.zeros((64, 64, 3, 3), bool)
    keep[0, 0, 0, 0] = True
    values = np.where(keep, np.float32(1), 0).astype(np.float32)
    arrays = {f"n{i}": Array(values * (i + 1), "float32", keep) for i in range(8)}
    data = encode(Contents(arrays))
    one = values.nbytes + keep.nbytes
    assert len(decode(data, memory_limit=8 * one).arrays) == 8
    with pytest.raises(RuntimeFileError, match=f"unpacks to {8 * one:,} bytes"):
        decode(data, memory_limit=8 * one - 1)
    header, bodies = split(data)
    reshape("n3", 2**50)(header)
    header["sections"][3].update(positions=2**47)
    with pytest.raises(RuntimeFileError, match="the sections end at byte"):
        decode(join(header, bodies))


def test_the_reference_and_the_reader_agree_on_what_is_changed() -> None:
    """The reader in plain Python, with no limits of its own, reads nothing else where both read."""
    rng = np.random.default_rng(3)
    agreed = 0
    for _ in range(150):
        header, bodies = split(DATA)
        fuzz.change_body(rng, header, bodies)
        data = join(header, bodies)
        try:
            contents = decode(data)
        except RuntimeFileError:
            continue
        assert reference.read(data)["arrays"] == snapshot(contents)["arrays"]
        agreed += 1
    assert agreed > 10
    assert json.loads(dump(split(DATA)[0])) == split(DATA)[0]
