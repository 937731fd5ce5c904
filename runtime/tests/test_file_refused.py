"""What cannot be written is refused before anything is."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from file_example import example
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import Array, Contents, encode, write
from regrow_runtime.graph import Graph, Node


def test_a_refused_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.regrow"
    write(path, example())
    before = path.read_bytes()
    link = tmp_path / "link.regrow"
    link.symlink_to(path.name)
    write(link, Contents({}))
    assert link.is_symlink()
    assert path.read_bytes() == encode(Contents({}))
    path.write_bytes(before)
    with pytest.raises(RuntimeFileError, match="index 1"):
        write(path, Contents({"a": Array(np.ones(2, np.float32), "float32", np.arange(2) < 1)}))
    with pytest.raises(RuntimeFileError, match=r"none/m\.regrow cannot be written: No such"):
        write(tmp_path / "none" / "m.regrow", example())

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RuntimeFileError, match=r"m\.regrow cannot be written: No space left"):
        write(path, Contents({}))
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.regrow", "m.regrow"]


ONE = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (Array(ONE, "complex64"), "no dtype 'complex64'"),
        (Array(ONE, "float16"), "float32 values are not float16"),
        (Array(ONE.astype(">f4"), "float32"), ">f4 values are not float32"),
        (Array(ONE, "float32", origin="int8"), "cannot come from int8"),
        (Array(ONE, "float32", origin="float8"), "cannot come from float8"),
        (Array(ONE.astype(np.int64), "int64"), "int64 values cannot come from float32"),
        (Array(ONE.astype(np.int8), "int8"), "int8 values cannot come from float32"),
        (Array(ONE, "float32", np.ones(2)), "keep mask is float64"),  # type: ignore[arg-type]
        (Array(ONE, "float32", np.ones(3, bool)), r"shape \(3,\), the values have \(2,\)"),
        (Array(-0 * -ONE, "float32", np.arange(2) < 1), "1 removed entries .* index 1"),
        (Array(ONE, "float32", scales=ONE), "scales are float32, of int8"),
        (Array(ONE.astype(np.int8), "int8", scales=ONE.astype(float)), "float64 scales"),  # type: ignore[arg-type]
        (Array(ONE.astype(np.int8), "int8", scales=ONE[:1]), "each row along axis 0"),
        (Array(np.array(1, np.int8), "int8", scales=ONE), "each row along axis 0"),
        (Array(ONE.astype(np.int8), "int8", scales=ONE, origin="int8"), "cannot come from int8"),
        (Array(ONE, "float32", levels=ONE[:1]), "levels are float32, of int8"),
        (Array(ONE.astype(np.int8), "int8", scales=ONE, levels=ONE[:1]), "int8 without scales"),
        (Array(ONE.astype(np.int8), "int8", levels=ONE), "ascending numbers above zero"),
        (Array(ONE.astype(np.int8), "int8", levels=0 * ONE[:1]), "ascending numbers above zero"),
        (Array(ONE.astype(np.int8) * 2, "int8", levels=ONE[:1]), "a value of 2 has no level of 1"),
        (Array(np.array(1, np.int8), "int8", levels=ONE[:1]), "levels of a scalar"),
        (Array(np.array([2], np.uint8).view(bool), "bool", origin="bool"), "neither 0 nor 1"),
        (Array(np.zeros((1,) * 33, np.float32), "float32"), "no short list"),
    ],
    ids=itertools.count(),
)
def test_arrays_that_cannot_be_written(array: Array, reason: str) -> None:
    with pytest.raises(RuntimeFileError, match=reason) as caught:
        encode(Contents({"the.name": array}))
    assert "the.name" in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"a": (1, 2)}, "a tuple"),
        ({"a": math.nan}, "JSON"),
        ({"a": {1: 2}}, "key 1"),
        ({"a": "\ud800"}, "JSON"),
        ({"a": np.float32(1)}, "a float32"),
        ({"a": 2**63}, "more than 64 bits"),
        ({"a": "x" * 2**22}, "more than 4,194,304 bytes"),
        ([], "not a dict"),
    ],
    ids=itertools.count(),
)
def test_metadata_that_cannot_be_written(metadata: Any, reason: str) -> None:
    with pytest.raises(RuntimeFileError, match=reason):
        encode(Contents({}, None, metadata))
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(RuntimeFileError, match="deeper than 32"):
        encode(Contents({}, None, {"a": nested}))


def test_names_and_graphs_that_cannot_be_written() -> None:
    with pytest.raises(RuntimeFileError, match="names and shapes"):
        encode(Contents({"": Array(ONE, "float32")}))
    inputs = (("x", (2,), "float32"),)
    for node, reason in (
        (Node("relu", ("y",), "z"), "node 0 .*'y'"),
        (Node("clamp", ("x",), "z", {}, {"low": math.inf, "high": None}), "JSON"),
        (Node("clamp", ("x",), "z", {}, {"low": np.float32(1), "high": None}), "JSON"),
        (Node("add_array", ("x",), "z", {"weight": "w"}), "'w' is not stored"),
    ):
        with pytest.raises(RuntimeFileError, match=reason):
            encode(Contents({"a": Array(ONE, "float32")}, Graph(inputs, ("z",), (node,))))
