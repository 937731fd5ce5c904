"""Bytes, time and memory that a file takes."""

from __future__ import annotations

import itertools
import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import reference
from file_example import snapshot
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import Array, Contents, decode, encode, read, sizes, write
from regrow_runtime.graph import Graph, Node


def sparse_network() -> Contents:
    """The arrays of a VGG16 for small images, of which 3.6 % are kept."""
    rng = np.random.default_rng(0)
    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    stored = {}
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        shape = (after, before, 3, 3)
        keep = rng.random(shape) < 0.036
        weight = np.zeros(shape, np.float32)
        weight[keep] = rng.laplace(0, 0.02, int(keep.sum()))
        stored[f"{i}.weight"] = Array(weight, "float32", keep)
        for role in ("weight", "bias", "mean", "var"):
            values = rng.normal(size=after).astype(np.float32)
            stored[f"{i}.norm.{role}"] = Array(values, "float32")
    return Contents(stored)


def test_a_network_is_near_the_bound_and_loads_fast() -> None:
    contents = sparse_network()
    data = encode(contents)
    found = sizes(contents)
    positions = sum(one["position_bits"] for one in found)
    bound = sum(one["position_bits_bound"] for one in found)
    assert bound < positions < 1.01 * bound
    kept = sum(one["kept"] for one in found if one["position_bits"])
    # Raw, a kept float32 takes 32 bits; sign, exponent and leading bits are not uniform.
    assert sum(one["value_bits"] for one in found if one["position_bits"]) < 27 * kept
    streams = sum(one["position_bits"] + one["value_bits"] for one in found) / 8
    assert len(data) - streams < 4000  # header and prelude
    seconds = []
    for _ in range(3):
        start = time.process_time()
        back = decode(data)
        seconds.append(time.process_time() - start)
    assert snapshot(back) == snapshot(contents)
    assert min(seconds) < 1  # 0.2 s on an idle core


def test_reading_takes_at_most_twice_the_memory_that_is_declared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 2**20
    values = rng.normal(size=count).astype(np.float32)
    bits = rng.integers(0, 2**32, count, np.uint32)
    thin = rng.random(count) < 0.5
    shapes = {"flat": (count,), "flat rows": (8, count // 8), "kernels": (2**8, 2**8, 4, 4)}
    cases = {
        "coded": Array(values, "float32"),
        "raw": Array(bits.view(np.float32), "float32"),
        "raw integers": Array(bits.view(np.int32), "int32", origin="int32"),
    }
    for name, shape in shapes.items():
        keep = thin.reshape(shape)
        cases[f"masked {name}"] = Array(np.where(keep, values.reshape(shape), 0), "float32", keep)
        small = np.where(keep, bits.reshape(shape) & 63, 0).astype(np.int8)
        ones = np.ones(shape[0], np.float32)
        cases[f"int8 {name}"] = Array(small, "int8", keep, ones)
    for name, array in cases.items():
        path = tmp_path / "m.regrow"
        write(path, Contents({"a": array}))
        declared = array.values.nbytes
        for part in (array.keep, array.scales):
            declared += 0 if part is None else part.nbytes
        tracemalloc.start()
        read(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * declared + 2**17, name
        read(path, memory_limit=declared)
        with pytest.raises(RuntimeFileError, match=f"unpacks to {declared:,} bytes"):
            read(path, memory_limit=declared - 1)


def test_a_large_claim_is_refused_before_memory_is_taken() -> None:
    keep = np.zeros((2**10, 2**10), bool)
    keep[0, 0] = True
    header, bodies = reference.split(
        encode(Contents({"a": Array(keep.astype(np.float32), "float32", keep)}))
    )
    header["sections"][0]["arrays"][0][1] = [2**14, 2**14, 2, 2]
    data = reference.join(header, bodies)
    tracemalloc.start()
    with pytest.raises(RuntimeFileError, match=r"unpacks to 5,368,709,120 bytes.*memory_limit"):
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_the_header_takes_few_bytes() -> None:
    layer = {
        "stride": [1, 1],
        "padding": [1, 1],
        "dilation": [1, 1],
        "groups": 1,
    }
    stored, nodes, last = {}, [], "x"
    rng = np.random.default_rng(0)
    for i in range(13):
        weight = rng.normal(size=(8, 8, 3, 3)).astype(np.float32)
        stored[f"features.{i}.weight"] = Array(weight, "float32", weight != 0)
        roles = {"weight": f"features.{i}.weight"}
        nodes.append(Node("conv2d", (last,), f"conv2d.{i}", roles, layer, f"features.{i}"))
        for role in ("weight", "bias", "running_mean", "running_var"):
            stored[f"norm.{i}.{role}"] = Array(rng.normal(size=8).astype(np.float32), "float32")
        roles = {
            role.removeprefix("running_"): f"norm.{i}.{role}"
            for role in ("weight", "bias", "running_mean", "running_var")
        }
        nodes.append(
            Node("batch_norm", (f"conv2d.{i}",), f"b.{i}", roles, {"eps": 1e-5}, f"norm.{i}")
        )
        last = f"relu.{i}"
        nodes.append(Node("relu", (f"b.{i}",), last))
    data = encode(Contents(stored, Graph((("x", (8, 8, 8), "float32"),), (last,), tuple(nodes))))
    header, bodies = reference.split(data)
    assert len(json.dumps(header)) > 8000
    assert len(data) - sum(map(len, bodies)) < 2000
