from __future__ import annotations

import base64
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from file_example import example, snapshot
from regrow_runtime import file
from regrow_runtime.arrays import DTYPES, FLOATS
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import Array, Contents, decode, encode, read, sizes, write
from regrow_runtime.graph import Node

SPECIAL = {
    "float32": [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFA00000, 1, 0x007FFFFF],
    "float16": [0, 1 << 15, 0x7C00, 0xFC00, 0x7E01, 0xFD00, 1, 0x03FF],
    "bfloat16": [0, 1 << 15, 0x7F80, 0xFF80, 0x7FC1, 0xFFA0, 1, 0x007F],
    "int8": [0, 1, 127, 128, 255],
}


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Any array: any bits, mostly of few kinds, any shape, with and without mask and factors."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    size = DTYPES[dtype].itemsize
    shape = draw(
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
        | st.sampled_from([(0,), (3, 0, 2), (9, 4, 3, 3), (2, 3, 9, 8), (40, 20), (700,)])
    )
    count = math.prod(shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype == "bool":
        bits = rng.integers(0, 2, count, np.uint8)
    elif draw(st.booleans()):
        bits = np.frombuffer(rng.bytes(count * size), f"u{size}").copy()
    else:
        few = [0, *SPECIAL.get(dtype, [1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1])]
        bits = rng.choice(np.array(few, f"u{size}"), count)
    keep = None
    if draw(st.booleans()):
        keep = rng.random(count) < draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
        if count and draw(st.booleans()):
            keep[:] = np.arange(count) == rng.integers(count)
    if draw(st.booleans()):
        bits[rng.random(count) < 0.8] = 0
    if keep is not None:
        bits[~keep] = 0
        keep = keep.reshape(shape)
    scales, origin, levels = None, dtype, None
    if dtype == "int8" and shape and draw(st.booleans()):
        top = draw(st.integers(1, 127))
        bits = (bits.view(np.int8).astype(np.int16) % (top + 1)).astype(np.uint8)
        bits[::2] = -bits[::2]
        levels = np.cumsum(rng.random(top, np.float32) + np.float32(1e-3), dtype=np.float32)
        origin = draw(st.sampled_from(FLOATS))
    elif dtype == "int8" and shape and draw(st.booleans()):
        scales = rng.normal(size=shape[0]).astype(np.float32)
        origin = draw(st.sampled_from(FLOATS))
    elif dtype in FLOATS:
        origin = draw(st.sampled_from(FLOATS))
    return Array(bits.view(DTYPES[dtype]).reshape(shape), dtype, keep, scales, origin, levels)


@given(st.lists(arrays(), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_arrays_come_back_to_the_bit(given_arrays: list[Array]) -> None:
    contents = Contents({f"n{i}": array for i, array in enumerate(given_arrays)})
    data = encode(contents)
    before, back = snapshot(contents)["arrays"], snapshot(decode(data))["arrays"]
    assert back == reference.read(data)["arrays"]
    assert set(back) == set(before)
    for name, array in contents.arrays.items():
        if array.keep is None and back[name]["keep"] is not None:
            bits = np.ascontiguousarray(array.values).view(f"u{array.values.itemsize}")
            assert back[name]["keep"] == (bits != 0).tobytes()
            before[name]["keep"] = back[name]["keep"]
    assert back == before
    assert encode(decode(data)) == data
    # Nothing takes more than its raw form.
    raw = sum(
        array.values.nbytes
        + (0 if array.keep is None else -(-array.values.size // 8))
        + sum(each.nbytes for each in (array.scales, array.levels) if each is not None)
        for array in given_arrays
    )
    _, bodies = reference.split(data)
    assert sum(map(len, bodies)) <= raw


def test_the_example_comes_back_and_reads_by_the_documented_layout(tmp_path: Path) -> None:
    path = tmp_path / "m.regrow"
    size = write(path, example())
    data = path.read_bytes()
    assert size == len(data) == len(encode(example()))
    contents = read(path)
    assert snapshot(contents) == snapshot(example())
    plain = reference.read(data)
    assert plain["arrays"] == snapshot(contents)["arrays"]
    assert plain["metadata"] == contents.metadata
    assert contents.graph is not None
    for node, value in zip(contents.graph.nodes, plain["graph"]["nodes"], strict=True):
        assert Node(**{**value, "inputs": tuple(value["inputs"])}) == node
    assert contents.arrays["tied"] is contents.arrays["conv.weight"]
    header, bodies = reference.split(data)
    assert header["aliases"] == {"tied": "conv.weight"}
    kinds = {
        (entry["dtype"], "kept" in entry, len(body) == 0, len(entry["arrays"]) > 1)
        for entry, body in zip(header["sections"], bodies, strict=True)
    }
    assert ("float32", False, False, True) in kinds  # the norm's vectors share one section
    for array in contents.arrays.values():
        assert array.values.flags.writeable


GOLDEN = Path(__file__).parent / "golden-2.txt"


def test_the_format_has_not_changed() -> None:
    """The stored file still reads, and still is what is written, up to how zlib deflates."""
    data = base64.b64decode(GOLDEN.read_bytes())
    assert snapshot(decode(data)) == snapshot(example())
    assert reference.split(encode(example())) == reference.split(data)
    assert encode(example())[:16] == data[:16]


def test_equal_contents_have_equal_bytes() -> None:
    contents = example()
    arrays_ = {
        name: replace(
            array,
            values=array.values.copy(order="F"),
            keep=None if array.keep is None else array.keep.copy(order="F"),
        )
        for name, array in reversed(contents.arrays.items())
    }
    metadata = dict(reversed(contents.metadata.items()))
    assert encode(Contents(arrays_, contents.graph, metadata)) == encode(contents)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from file_example import example;"
        "from regrow_runtime.file import encode; sys.stdout.buffer.write(encode(example()))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
    )
    assert other.stdout == encode(contents)


def test_without_a_mask_the_smaller_form_is_stored() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(64, 64)).astype(np.float32)
    thin = np.where(rng.random(values.shape) < 0.1, values, 0).astype(np.float32)
    for array, sparse in ((values, False), (thin, True), (np.zeros((64, 64), np.float32), True)):
        back = decode(encode(Contents({"a": Array(array, "float32")}))).arrays["a"]
        assert (back.keep is not None) == sparse
        assert back.keep is None or np.array_equal(back.keep, array != 0)
    forms = [encode(Contents({"a": Array(thin, "float32", keep)})) for keep in (None, thin != 0)]
    assert forms[0] == forms[1]
    whole = encode(Contents({"a": Array(thin, "float32", np.ones(thin.shape, bool))}))
    assert len(forms[0]) < 0.3 * len(whole)
    few = Array(np.array([0.0, 1.0, 0.0], np.float32), "float32")
    assert decode(encode(Contents({"a": few}))).arrays["a"].keep is None


def test_equal_arrays_are_stored_once_and_others_are_not() -> None:
    ones = np.ones((3, 4), np.float32)
    variants = [
        Array(ones, "float32"),
        Array(ones.reshape(4, 3), "float32"),
        Array(ones, "float32", np.ones((3, 4), bool)),
        Array(ones, "float32", origin="float64"),
        Array(-ones, "float32"),
        Array(ones.view(np.int32), "int32", origin="int32"),
        Array(ones.astype(np.int8), "int8", scales=np.ones(3, np.float32)),
        Array(ones.astype(np.int8), "int8", scales=-np.ones(3, np.float32)),
    ]
    names = {f"{copy}{i}": each for i, each in enumerate(variants) for copy in "ab"}
    data = encode(Contents(names))
    header, _ = reference.split(data)
    assert header["aliases"] == {f"b{i}": f"a{i}" for i in range(len(variants))}
    assert snapshot(decode(data))["arrays"] == snapshot(Contents(names))["arrays"]


def test_sizes_of_a_file_and_of_what_would_be_written(tmp_path: Path) -> None:
    path = tmp_path / "m.regrow"
    write(path, example())
    found = {one["name"]: one for one in sizes(path)}
    assert list(found.values()) == sizes(example())
    assert set(found) == set(example().arrays) - {"tied"}
    conv = found["conv.weight"]
    keep = example().arrays["conv.weight"].keep
    assert keep is not None
    assert (conv["weights"], conv["kept"]) == (keep.size, keep.sum())
    exact = math.log2(math.comb(keep.size, int(keep.sum())))
    assert conv["position_bits_bound"] == pytest.approx(exact, rel=1e-9)
    assert found["norm.steps"]["position_bits_bound"] == 0
    header, _ = reference.split(path.read_bytes())
    for stream in ("position", "value", "scale"):
        stored = 8 * sum(entry.get(f"{stream}s", 0) for entry in header["sections"])
        assert sum(one[f"{stream}_bits"] for one in found.values()) == pytest.approx(stored)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RuntimeFileError, match=r"m\.regrow cannot be used"):
        sizes(path)


def test_what_entries_mean_as_floats() -> None:
    signal = np.array([0x7C01], np.uint16).view(np.float16)
    with np.errstate(all="raise"):
        assert np.isnan(Array(signal, "float16").floats()).all()
        brain = Array(np.array([0x3FC0, 0xFF80], np.uint16), "bfloat16").floats()
    assert brain.tolist() == [1.5, -math.inf]
    rows = np.array([[[1, -2]], [[3, 127]]], np.int8)
    scaled = Array(rows, "int8", scales=np.array([0.5, 2], np.float32)).floats()
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [[[0.5, -1.0]], [[6.0, 254.0]]]
    few = Array(rows, "int8", levels=np.arange(1, 128, dtype=np.float32) / 4).floats()
    assert few.dtype == np.float32
    assert few.tolist() == [[[0.25, -0.5]], [[0.75, 31.75]]]
    same = np.arange(3, dtype=np.float32)
    assert Array(same, "float32").floats() is same


def test_other_files(tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(RuntimeFileError, match=r"other\.pt is not a packed file"):
        read(other)
    with pytest.raises(RuntimeFileError, match="is not a file"):
        read(tmp_path)
    with pytest.raises(RuntimeFileError, match=r"missing\.regrow cannot be read: No such file"):
        read(tmp_path / "missing.regrow")
    with pytest.raises(RuntimeFileError, match=r"newer regrow.*upgrade regrow-runtime"):
        decode(reference.join({}, [], version=3))
    with pytest.raises(RuntimeFileError, match=r"format 1.*read it with regrow"):
        decode(reference.join({}, [], version=1))
    with pytest.raises(RuntimeFileError, match="format 0 does not exist"):
        decode(reference.join({}, [], version=0))
    with pytest.raises(RuntimeFileError, match="unknown flags 0x1"):
        decode(reference.join({}, [], flags=1))


def test_nothing_here_needs_torch_or_pickle() -> None:
    for name in ("file", "header", "sections", "check_graph", "operations"):
        source = (Path(file.__file__).parent / f"{name}.py").read_text()
        assert "import torch" not in source
        assert "import pickle" not in source
