from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from container_example import (
    PRELUDE,
    data_of,
    digest,
    dump,
    example,
    join,
    snapshot,
    split,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import RegrowError
from regrow.export import container
from regrow.export.container import Contents, decode, encode, read
from regrow.export.sections import DTYPES, Section

bits = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        hnp.arrays(
            np.uint8 if name == "bool" else f"u{DTYPES[name].itemsize}",
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
            elements=st.integers(0, 1) if name == "bool" else None,
            fill=st.just(0),
        ),
    )
)


@given(bits, st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_bits_of_any_dtype_come_back(
    drawn: tuple[str, np.ndarray], random: Any, masked: bool
) -> None:
    dtype, raw = drawn
    array = raw.view(DTYPES[dtype])
    keep = None
    if masked:
        extra = np.array([random.random() < 0.3 for _ in range(raw.size)], np.bool_)
        keep = (raw != 0) | extra.reshape(raw.shape)
    data = data_of(Contents((Section("x", dtype, array, keep),)))
    (back,) = decode(data).sections
    assert (back.dtype, back.array.dtype, back.array.shape) == (dtype, array.dtype, array.shape)
    assert back.array.tobytes() == array.tobytes()
    itemsize, numel = array.itemsize, array.size
    nonzero = int(np.count_nonzero(raw))
    if keep is not None:
        assert back.keep is not None
        assert np.array_equal(back.keep, keep)
        length = -(-numel // 8) + int(keep.sum()) * itemsize
    else:
        length = min(numel * itemsize, -(-numel // 8) + nonzero * itemsize)
        assert (back.keep is None) == (length == numel * itemsize)
        assert back.keep is None or np.array_equal(back.keep, raw != 0)
    header, body = split(data)
    assert len(body) == length
    assert len(data) == -(-(PRELUDE + len(dump(header))) // 64) * 64 + length


def test_the_bytes_are_those_of_the_documented_layout() -> None:
    array = np.zeros(20, np.float32)
    array[[0, 9, 19]] = [1.0, -0.0, 2.0]
    data = data_of(
        Contents(
            (Section("w", "float32", array), Section("b", "int8", np.array([[1], [2]], np.int8))),
            {"v": "w"},
            {"epoch": 3},
        )
    )
    dense = b"\x01\x02"
    sparse = b"\x01\x02\x08" + struct.pack("<3f", 1.0, -0.0, 2.0)
    header = {
        "aliases": {"v": "w"},
        "metadata": {"epoch": 3},
        "sections": [
            {
                "name": "b",
                "kind": "dense",
                "dtype": "int8",
                "shape": [2, 1],
                "offset": 0,
                "length": 2,
                "checksum": digest(dense).hex(),
            },
            {
                "name": "w",
                "kind": "bitmask",
                "dtype": "float32",
                "shape": [20],
                "offset": 64,
                "length": 15,
                "kept": 3,
                "checksum": digest(sparse).hex(),
            },
        ],
    }
    assert data == join(header, dense + bytes(62) + sparse)


def test_the_order_of_the_sections_does_not_matter() -> None:
    one = example()
    other = Contents(one.sections[::-1], dict(one.aliases), dict(one.metadata))
    assert data_of(one) == data_of(other)
    assert snapshot(decode(data_of(one)))["metadata"] == one.metadata
    assert decode(data_of(Contents(()))).sections == ()


def test_other_versions_flags_and_files(tmp_path: Path) -> None:
    header, body = split(data_of(example()))
    with pytest.raises(RegrowError, match=r"written by a newer regrow.*upgrade"):
        decode(join(header, body, version=2))
    with pytest.raises(RegrowError, match="newer regrow"):
        decode(join(b"whatever a later version says", b"", version=7))
    with pytest.raises(RegrowError, match="format 0"):
        decode(join(header, body, version=0))
    with pytest.raises(RegrowError, match="unknown flags 0x4"):
        decode(join(header, body, flags=4))
    other = tmp_path / "other.pt"
    other.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(RegrowError, match=r"other\.pt is not a packed file"):
        read(other)
    with pytest.raises(RegrowError, match="is not a file"):
        read(tmp_path)
    with pytest.raises(RegrowError, match=r"missing\.regrow cannot be read"):
        read(tmp_path / "missing.regrow")


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (Contents((), {}, {"a": (1, 2)}), "a tuple"),
        (Contents((), {}, {"a": float("nan")}), "JSON"),
        (Contents((), {}, {"a": float("inf")}), "JSON"),
        (Contents((), {}, {"a": {1: 2}}), "key 1"),
        (Contents((), {}, {"a": "\ud800"}), "JSON"),
        (Contents((), {}, {"a": np.float32(1)}), "a float32"),
        (Contents((), {"a": "b"}), "names no section"),
        (Contents((Section("a", "int8", np.zeros(1, np.int8)),) * 2), "repeated"),
        (Contents((Section("", "int8", np.zeros(1, np.int8)),)), "empty"),
        (Contents((Section("a", "complex64", np.zeros(1, np.complex64)),)), "no dtype"),
        (Contents((Section("a", "int8", np.zeros(1, np.int16)),)), "int16 values"),
        (Contents((Section("a", "bool", np.array([2], np.uint8).view(np.bool_)),)), "neither"),
        (Contents((Section("a", "int8", np.ones(9, np.int8), np.ones(9)),)), "not bool"),
        (Contents((Section("a", "int8", np.ones(9, np.int8), np.ones(8, bool)),)), r"shape \(8,\)"),
        (Contents((Section("a", "int8", np.ones(9, np.int8), np.arange(9) < 7),)), "index 7"),
        (Contents((Section("a", "int8", np.zeros((1,) * 33, np.int8)),)), "short list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_written(contents: Contents, reason: str) -> None:
    with pytest.raises(RegrowError, match=reason):
        encode(contents)


def test_what_is_nested_too_deeply_cannot_be_written() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(RegrowError, match="deeper than 32"):
        encode(Contents((), {}, {"a": value}))


def test_the_container_needs_no_torch() -> None:
    for module in ("container.py", "sections.py"):
        source = (Path(container.__file__).parent / module).read_text()
        assert "torch" not in source
        assert "pickle" not in source
