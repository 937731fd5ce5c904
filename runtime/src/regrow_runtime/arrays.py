"""What a file stores: arrays with masks, scales or levels, and what the format can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow_runtime.errors import RuntimeFileError

DTYPES: Mapping[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),  # NumPy has no bfloat16: its raw bits
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
FLOATS = ("float64", "float32", "float16", "bfloat16")
Bits = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Array:
    """One stored array.

    Attributes:
        values: of any shape and of the NumPy type that `DTYPES` gives for `dtype`.
        dtype: of the stored values, a name in `DTYPES`.
        keep: bool, shaped like `values`, True = kept, where everything else is zero bits; None for
            an array without a mask.
        scales: float32 of shape (values.shape[0],), for int8 alone: an entry of row r, along
            axis 0, means its value times scales[r].
        levels: float32, positive and ascending, at most 127, for int8 alone and without scales: an
            entry z means sign(z) levels[|z| - 1], and zero if z is 0.
        origin: the dtype that the model had; of integers and booleans without scales it is `dtype`.
    """

    values: npt.NDArray[Any]
    dtype: str
    keep: npt.NDArray[np.bool_] | None = None
    scales: npt.NDArray[np.float32] | None = None
    origin: str = "float32"
    levels: npt.NDArray[np.float32] | None = None

    def floats(self) -> npt.NDArray[np.float32]:
        """What the entries mean, as float32; float32 values are given as they are."""
        if self.dtype == "bfloat16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        if self.levels is not None:
            table = np.zeros(256, np.float32)
            table[1 : len(self.levels) + 1] = self.levels
            table[256 - len(self.levels) :] = -self.levels[::-1]
            return table[self.values.view(np.uint8)]
        # Infinities of a narrower range and NaNs that signal are no fault here.
        with np.errstate(all="ignore"):
            floats = self.values.astype(np.float32, copy=False)
        if self.scales is None:
            return floats
        return floats * self.scales.reshape(-1, *[1] * (self.values.ndim - 1))


def check_array(name: str, array: Array) -> None:
    """Refuse what the format cannot hold; nothing is dropped or changed silently."""
    where = f"array {name!r}"
    expected = DTYPES.get(array.dtype)
    need(expected is not None, f"{where}: the format has no dtype {array.dtype!r}")
    values, keep, scales = array.values, array.keep, array.scales
    need(values.dtype == expected, f"{where}: {values.dtype} values are not {array.dtype}")
    bits = bits_of(values)
    check_bools(array.dtype, bits, where)
    if keep is not None:
        need(keep.dtype == np.bool_, f"{where}: the keep mask is {keep.dtype}, not bool")
        need(
            keep.shape == values.shape,
            f"{where}: the keep mask has shape {keep.shape}, the values have {values.shape}",
        )
        strays = np.flatnonzero((bits != 0) & ~keep.reshape(-1))
        if strays.size:
            raise RuntimeFileError(
                f"{where}: {strays.size} removed entries are not zero bits, the first at flat "
                f"index {strays[0]}; set removed entries to +0.0 or keep them"
            )
    if scales is not None:
        need(
            array.dtype == "int8" and scales.dtype == np.float32,
            f"{where}: {scales.dtype} scales of {array.dtype} values; scales are float32, of int8",
        )
        need(
            values.ndim > 0 and scales.shape == values.shape[:1],
            f"{where}: the scales have shape {scales.shape}, the values {values.shape}; each row "
            "along axis 0 has one scale",
        )

    if array.levels is not None:
        need(
            array.dtype == "int8" and array.levels.dtype == np.float32 and scales is None,
            f"{where}: {array.levels.dtype} levels of {array.dtype} values; levels are float32, of "
            "int8 without scales",
        )
        need(values.ndim > 0, f"{where}: levels of a scalar")
        check_levels(array.levels, values, where)


def check_levels(levels: npt.NDArray[Any], values: npt.NDArray[Any], where: str) -> None:
    """Refuse levels that do not ascend from above zero, and values that are beyond them."""
    fine = levels.ndim == 1 and 0 < levels.size <= 127 and np.isfinite(levels).all()
    fine = fine and levels[0] > 0 and bool((np.diff(levels) > 0).all())
    need(fine, f"{where}: levels are 1 to 127 ascending numbers above zero")
    most = int(np.abs(values.astype(np.int16)).max(initial=0))
    need(most <= levels.size, f"{where}: a value of {most} has no level of {levels.size}")


def bits_of(values: npt.NDArray[Any]) -> Bits:
    """Flat, as unsigned integers: nothing may touch a NaN or a negative zero."""
    return np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}")


def check_bools(dtype: str, bits: Bits, where: str) -> None:
    # A boolean byte that is neither 0 nor 1 is undefined behaviour downstream.
    need(dtype != "bool" or not (bits > 1).any(), f"{where}: a boolean is neither 0 nor 1")


def need(condition: bool, fault: str) -> None:
    """Raise the fault unless the condition holds; the caller of the format adds the path."""
    if not condition:
        raise RuntimeFileError(fault)
