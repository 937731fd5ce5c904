"""The native coder against a second one in plain Python, and against what theory allows."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from regrow_runtime import _native
from regrow_runtime.sections import grid

Bytes = npt.NDArray[np.uint8]


def as_bytes(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def encode_mask(keep: Bytes, rows: int, columns: int, inner: int) -> bytes:
    data: bytes = _native.encode_mask(keep, rows, columns, inner)
    return data


def decode_mask(data: bytes, rows: int, columns: int, inner: int) -> Bytes:
    keep = np.full(rows * columns * inner, 7, np.uint8)
    count = _native.decode_mask(as_bytes(data), rows, columns, inner, keep)
    assert count == np.count_nonzero(keep)
    return keep


def log2_choices(count: int, kept: int) -> float:
    return (math.lgamma(count + 1) - math.lgamma(kept + 1) - math.lgamma(count - kept + 1)) / (
        math.log(2)
    )


@st.composite
def masks(draw: st.DrawFn) -> tuple[Bytes, tuple[int, int, int]]:
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2, 9, 64])))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 0.8, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    keep = (rng.random(math.prod(shape)) < density).astype(np.uint8)
    keep[rng.integers(keep.size)] ^= draw(st.booleans())
    return keep, shape


@given(masks())
@settings(max_examples=80, deadline=None)
def test_masks_come_back_and_mean_the_same_in_plain_python(
    drawn: tuple[Bytes, tuple[int, int, int]],
) -> None:
    keep, shape = drawn
    data = encode_mask(keep, *shape)
    assert np.array_equal(decode_mask(data, *shape), keep)
    stream = reference.Stream(data)
    assert reference.mask(stream, *shape) == keep.tolist()
    # Besides the 32 bits at its end a stream may lose a part of a thousandth to rounding.
    assert stream.cost <= 8 * len(data) <= 1.001 * stream.cost + 40


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_values_come_back_and_mean_the_same_in_plain_python(dtype: str, data: Any) -> None:
    item = reference.ITEM[dtype]
    rows, length = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40))
    values = data.draw(
        hnp.arrays(f"u{item}", rows * length, elements=st.integers(0, 2 ** (8 * item) - 1))
    )
    if dtype == "int8":
        values[values == 128] = 0
    keep = data.draw(st.none() | hnp.arrays(np.uint8, rows * length, elements=st.integers(0, 1)))
    mask = np.ones(rows * length, bool) if keep is None else keep.astype(bool)
    coded = _native.encode_values(values.view(np.uint8), dtype, rows, keep)
    back = np.zeros_like(values)
    _native.decode_values(as_bytes(coded), dtype, rows, keep, back.view(np.uint8))
    assert np.array_equal(back, np.where(mask, values, 0))
    stream = reference.Stream(coded)
    counts = mask.reshape(rows, length).sum(1).tolist()
    assert reference.values(stream, dtype, counts) == values[mask].tolist()
    # A part of 8 raw bits may lose 1/256 of the range, 1/177 of a bit.
    assert stream.cost <= 8 * len(coded) <= 1.01 * stream.cost + 40


UNIFORM = [(64, 521, 9), (1000, 300, 1), (300, 1000, 1), (1, 300_000, 1), (512, 64, 16)]


@pytest.mark.parametrize("shape", UNIFORM)
@pytest.mark.parametrize("density", [0.01, 0.036, 0.1, 0.5])
def test_uniform_masks_cost_what_there_is_to_know(
    shape: tuple[int, int, int], density: float
) -> None:
    count = math.prod(shape)
    kept = round(density * count)
    keep = np.zeros(count, np.uint8)
    keep[np.random.default_rng(0).choice(count, kept, replace=False)] = 1
    bits = 8 * len(encode_mask(keep, *shape))
    least = log2_choices(count, kept)
    # On average no code is shorter.
    assert 0.995 * least < bits < (1.03 if density < 0.03 else 1.015) * least


def uneven(
    rows: int, columns: int, inner: int, density: float, spread: float
) -> tuple[Bytes, float]:
    """Independent entries, kept with a chance that is a row's times a column's; and their entropy
    in bits for one who knows all chances."""
    rng = np.random.default_rng(1)
    chance = rng.lognormal(0, spread, (rows, 1, 1)) * rng.lognormal(0, spread, (1, columns, 1))
    chance = np.broadcast_to(
        np.minimum(chance * density / chance.mean(), 0.95), (rows, columns, inner)
    )
    keep = rng.random(chance.shape) < chance
    entropy = -float(np.log2(np.where(keep, chance, 1 - chance)).sum())
    return keep.astype(np.uint8).reshape(-1), entropy


@pytest.mark.parametrize(
    ("shape", "density", "spread"),
    [
        ((256, 256, 9), 0.1, 0.7),
        ((512, 256, 9), 0.03, 1.0),
        ((512, 512, 1), 0.05, 1.0),
        ((300, 2000, 1), 0.036, 1.2),
    ],
)
def test_masks_of_uneven_rows_and_columns_cost_less(
    shape: tuple[int, int, int], density: float, spread: float
) -> None:
    keep, entropy = uneven(*shape, density, spread)
    bits = 8 * len(encode_mask(keep, *shape))
    assert bits < 0.9 * log2_choices(keep.size, int(keep.sum()))
    # Learning what each row and column keeps is not free: some bits for each of them.
    assert entropy < bits < 1.08 * entropy


def test_kernels_that_are_pruned_whole_cost_little() -> None:
    rng = np.random.default_rng(2)
    keep = np.repeat(rng.random((256, 128)) < 0.05, 9).astype(np.uint8)
    bits = 8 * len(encode_mask(keep, 256, 128, 9))
    kernels = log2_choices(256 * 128, int(keep.sum()) // 9)
    assert bits < 1.15 * kernels < 0.2 * log2_choices(keep.size, int(keep.sum()))


def test_values_cost_the_entropy_of_their_distribution() -> None:
    """Laplacian weights above a threshold, as magnitude pruning leaves them."""
    scale, least = 0.02, 0.03
    rng = np.random.default_rng(3)
    size = least + rng.exponential(scale, 100_000)
    weights = (size * rng.choice([-1, 1], size.size)).astype(np.float32)
    coded = _native.encode_values(weights.view(np.uint8), "float32", 1, None)
    # Entropy of the density, plus its mean log of how many floats there are to a unit, plus a sign.
    exponents = np.floor(np.log2(np.abs(weights)))
    entropy = math.log2(math.e * scale) + float(np.mean(23 - exponents)) + 1
    assert entropy < 8 * len(coded) / weights.size < 1.003 * entropy


def test_int8_rows_of_like_fullness_share_statistics() -> None:
    """Full rows have large values here, thin rows small ones; one table would cost more."""
    rng = np.random.default_rng(4)
    rows = np.zeros((400, 128), np.int8)
    rows[::2] = rng.integers(60, 127, (200, 128))
    rows[1::2, 0] = rng.integers(1, 4, 200)
    keep = (rows != 0).astype(np.uint8).reshape(-1)
    coded = len(_native.encode_values(rows.reshape(-1).view(np.uint8), "int8", 400, keep))
    plain = len(_native.encode_values(rows.reshape(-1).view(np.uint8), "int8", 1, keep))
    entropy = (200 * 128 * math.log2(67) + 200 * math.log2(3)) / 8
    assert entropy < coded < min(1.02 * entropy, plain)


def streams() -> list[tuple[str, bytes, Any]]:
    keep, _ = uneven(16, 32, 9, 0.1, 0.5)
    values = np.random.default_rng(5).normal(size=300).astype(np.float32).view(np.uint8)
    out = np.zeros_like(values)
    return [
        ("mask", encode_mask(keep, 16, 32, 9), lambda data: decode_mask(data, 16, 32, 9)),
        (
            "values",
            _native.encode_values(values, "float32", 1, None),
            lambda data: _native.decode_values(as_bytes(data), "float32", 1, None, out),
        ),
    ]


@pytest.mark.parametrize(("name", "data", "decode"), streams(), ids=["mask", "values"])
def test_no_other_stream_means_the_same(name: str, data: bytes, decode: Any) -> None:
    decode(data)
    for length in range(len(data)):
        with pytest.raises(_native.Damaged, match=r"too early|no encoder"):
            decode(data[:length])
    for tail in (b"\0", b"\xff", data):
        with pytest.raises(_native.Damaged, match="left over"):
            decode(data + tail)
    for last in range(1, 256):  # the end of the last interval is not free
        changed = data[:-1] + bytes([(data[-1] + last) % 256])
        with pytest.raises(_native.Damaged):
            decode(changed)
    with pytest.raises(_native.Damaged, match="no encoder"):
        decode(b"\xff" * len(data))


def test_what_decodes_from_random_bytes_encodes_to_them_again() -> None:
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(20_000):
        data = bytes(rng.integers(0, 256, rng.integers(4, 6), np.uint8))
        shape = (1, int(rng.integers(1, 3)), int(rng.integers(1, 4)))
        try:
            keep = decode_mask(data[:4] if rng.random() < 0.5 else data, *shape)
        except _native.Damaged:
            continue
        found += 1
        assert encode_mask(keep, *shape) in (data, data[:4])
    for keep in np.unpackbits(np.arange(16, dtype=np.uint8)[:, None], axis=1)[:, 4:]:
        assert np.array_equal(decode_mask(encode_mask(keep, 1, 2, 2), 1, 2, 2), keep)
    assert found < 100  # nearly none decodes


def test_a_short_stream_cannot_keep_the_decoder_busy() -> None:
    """The cheapest bit has a price, so a claim of 2^29 kernels ends with the bytes."""
    keep = np.zeros(2**26, np.uint8)
    with pytest.raises(_native.Damaged, match="too early"):
        _native.decode_mask(np.zeros(64, np.uint8), 2**13, 2**13, 1, keep)


@pytest.mark.parametrize(
    "shape", [(0, 1, 4), (1, 4, 0), (2, 2, 2), (4, 1, 65), (2**31, 2**31, 1), (2**62, 4, 1)]
)
def test_grids_that_do_not_fit_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="grid"):
        _native.encode_mask(np.zeros(4, np.uint8), *shape)
    with pytest.raises(ValueError, match="grid"):
        _native.decode_mask(np.zeros(4, np.uint8), *shape, np.zeros(4, np.uint8))


def test_values_that_do_not_fit_are_refused() -> None:
    four = np.zeros(4, np.uint8)
    for rows, keep in ((0, None), (3, None), (1, np.zeros(3, np.uint8))):
        with pytest.raises(ValueError, match=r"rows|mask"):
            _native.encode_values(four, "int8", rows, keep)
        with pytest.raises(ValueError, match=r"rows|mask"):
            _native.decode_values(four, "int8", rows, keep, four.copy())
    with pytest.raises(ValueError, match="-128"):
        _native.encode_values(np.array([128], np.uint8), "int8", 1, None)
    with pytest.raises(ValueError, match="dtype"):
        _native.encode_values(four, "int32", 1, None)


@given(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=9))
@settings(max_examples=200, deadline=None)
def test_every_shape_is_a_grid(shape: tuple[int, ...]) -> None:
    rows, columns, inner = grid(shape)
    assert rows * columns * inner == math.prod(shape)
    assert 1 <= inner <= 64
    assert (rows, columns, inner) == reference.grid([list(shape)])
