"""Operations in float64, written as their definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def conv2d(
    x: Array,
    weight: Array,
    bias: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """(B, C, H, W) and (O, C / groups, kh, kw) to (B, O, H', W'): a sum over taps."""
    batch, _, height, width = x.shape
    outputs, per_group, rows, columns = weight.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    out_h = (height + 2 * padding[0] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    out_w = (width + 2 * padding[1] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    out = np.zeros((batch, outputs, out_h, out_w))
    for group in range(groups):
        mine = slice(group * outputs // groups, (group + 1) * outputs // groups)
        part = padded[:, group * per_group : (group + 1) * per_group]
        for i in range(rows):
            for j in range(columns):
                top, left = i * dilation[0], j * dilation[1]
                bottom = top + (out_h - 1) * stride[0] + 1
                right = left + (out_w - 1) * stride[1] + 1
                window = part[:, :, top : bottom : stride[0], left : right : stride[1]]
                out[:, mine] += np.einsum("bchw,oc->bohw", window, weight[mine, :, i, j])
    return out + bias[:, None, None]


def pool(x: Array, a: Mapping[str, Any], mean: bool) -> Array:
    """Windows one by one; of a mean the padding counts if `a["count_padding"]`."""
    (kh, kw), (sh, sw), (ph, pw) = a["kernel"], a["stride"], a["padding"]
    dh, dw = (1, 1) if mean else a["dilation"]

    def length(n: int, k: int, s: int, p: int, d: int) -> int:
        beyond = n + 2 * p - d * (k - 1) - 1
        count = (-(-beyond // s) if a["ceil"] else beyond // s) + 1
        # The last window begins inside of the input or of the padding before it.
        return count - 1 if a["ceil"] and (count - 1) * s >= n + p else count

    height, width = x.shape[2:]
    out = np.zeros((*x.shape[:2], length(height, kh, sh, ph, dh), length(width, kw, sw, pw, dw)))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            rows = [i * sh - ph + k * dh for k in range(kh)]
            columns = [j * sw - pw + k * dw for k in range(kw)]
            inside_r = [r for r in rows if 0 <= r < height]
            inside_c = [c for c in columns if 0 <= c < width]
            window = x[:, :, inside_r][:, :, :, inside_c]
            if not mean:
                out[:, :, i, j] = window.max((2, 3))
                continue
            count = len(inside_r) * len(inside_c)
            if a["count_padding"]:
                count = sum(r < height + ph for r in rows) * sum(c < width + pw for c in columns)
            out[:, :, i, j] = window.sum((2, 3)) / count
    return out
