"""Exact selection of the k largest scores over one tensor or many, without sorting or joining them.

The k-th largest value t is bracketed by a strided sample, one pass counts what lies above the
bracket and copies the little that lies inside, and an exact selection on the copy gives t. A
bracket that misses, or holds too much, is narrowed by bisection over the ordered bit patterns of
the floats: at most 64 counting passes whatever the values and their order. After Floyd and Rivest
(1975), "Expected time bounds for selection", with a regular sample in place of a random one.

On a CPU the passes run in numpy: its comparisons, counts and partition are several times faster
than torch's on one thread, and short parallel regions stall where cores are shared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from regrow.core.errors import RegrowError

_INF = math.inf
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SAMPLE = 30_000  # scores in the sample; few enough for torch to read them on one thread
_SMALL = 1 << 16  # this many scores are selected from directly
_SPREADS = 5.0  # half-width of the bracket, in standard deviations of a random sample's rank


class _Part(NamedTuple):
    """One chunk against a bracket: how many scores lie above it and in it, and which ones."""

    owner: int
    above: int
    inside: int
    values: Tensor | None


class _Share(NamedTuple):
    """What one chunk contributes: all `above` the threshold, and the first `ties` of `equal`."""

    owner: int
    above: int
    equal: int
    ties: int


def largest(scores: Tensor, k: int) -> Tensor:
    """The k largest scores as a mask; equal scores go to the lower flat index.

    Args:
        scores: a float16, bfloat16, float32 or float64 tensor of any shape and device; the flat
            index is the logical (C) order whatever the strides. -inf is never selected, +inf
            always first.
        k: how many to select, 0 <= k <= number of scores above -inf.

    Returns:
        Bool, contiguous, of the shape of `scores`, with exactly k True.

    Raises:
        RegrowError: k is out of range, a score is NaN, or the dtype is none of those above.
    """
    flat = scores.detach().reshape(-1)
    _check([flat], k)
    keep = torch.empty(flat.shape, dtype=torch.bool, device=flat.device)
    if k == 0:
        _native(keep)[:] = False
        return keep.view(scores.shape)
    threshold, shares = _select([flat], k)
    size = _chunk_size(flat)
    for share, (_, chunk), out in zip(shares, _chunks([flat]), keep.split(size), strict=True):
        all_ties = share.ties == share.equal
        _native(out)[:] = chunk >= threshold if all_ties else chunk > threshold
        if not all_ties and share.ties:
            out[torch.as_tensor(chunk == threshold).nonzero()[: share.ties, 0]] = True
    return keep.view(scores.shape)


def count_largest(scores: Sequence[Tensor], k: int) -> list[int]:
    """How many of the k largest scores over all tensors together lie in each tensor.

    Agrees with `largest` on the concatenation, ties going to the lower position in it, but never
    forms it. Beyond the scores it needs the copy of a narrow bracket (at most 1/16 of them), a
    few chunks, and one contiguous copy at a time of the tensors that are not contiguous.

    Args:
        scores: tensors as in `largest`; shapes and dtypes may differ.
        k: how many to select, 0 <= k <= number of scores above -inf.

    Returns:
        One count per tensor; they add up to k.

    Raises:
        RegrowError: k is out of range, a score is NaN, or the dtype is none of those above.
    """
    scores = [tensor.detach() for tensor in scores]
    _check(scores, k)
    counts = [0] * len(scores)
    if k > 0:
        for share in _select(scores, k)[1]:
            counts[share.owner] += share.above + share.ties
    return counts


def _check(scores: Sequence[Tensor], k: int) -> None:
    """Refuse what has no answer."""
    for index, tensor in enumerate(scores):
        if tensor.dtype not in _DTYPES:
            names = ", ".join(str(dtype) for dtype in _DTYPES)
            raise RegrowError(
                f"scores of tensor {index} (shape {tuple(tensor.shape)}) are {tensor.dtype}; "
                f"convert them to one of {names}."
            )
    for index, chunk in _chunks(scores):
        # The maximum of scores is NaN if any of them is, and takes one read and no memory.
        if len(chunk) and math.isnan(chunk.max()):
            tensor = scores[index]
            raise RegrowError(
                f"{int(tensor.isnan().sum())} of {tensor.numel()} scores of tensor {index} (shape "
                f"{tuple(tensor.shape)}) are NaN; repair the criterion, or give entries that must "
                "not be selected the score -inf."
            )
    if k < 0 or k > sum(tensor.numel() for tensor in scores):
        raise _out_of_range(k, sum(_count(x > -_INF) for _, x in _chunks(scores)))


def _out_of_range(k: int, selectable: int) -> RegrowError:
    return RegrowError(
        f"cannot select {k} scores: {selectable} are selectable (above -inf); "
        f"ask for a number from 0 to {selectable}."
    )


def _select(scores: Sequence[Tensor], k: int) -> tuple[float, list[_Share]]:
    """The k-th largest value of all scores, and what every chunk contributes; 0 < k <= numel."""
    dtype = _working_dtype(scores)
    total = sum(tensor.numel() for tensor in scores)
    room = max(_SMALL, total // 16)
    lo, hi = (-_INF, _INF) if total <= _SMALL else _bracket(scores, k, total)
    # Exclusive bounds on the key of the threshold, and how many scores have keys beyond them.
    floor, ceiling = _key(-_INF, dtype) - 1, _key(_INF, dtype) + 1
    beyond_floor, beyond_ceiling = total, 0
    while True:
        parts = _survey(scores, lo, hi, room)
        above = sum(part.above for part in parts)
        reach = above + sum(part.inside for part in parts)
        copied = all(part.values is not None for part in parts)
        point = lo == hi
        if above < k <= reach and (point or copied):
            break
        following: float | None = None
        if above >= k:
            floor, beyond_floor = _key(hi, dtype) - (not point), above
            following = None if point else hi
        elif reach < k:
            ceiling, beyond_ceiling = _key(lo, dtype) + (not point), reach
            following = None if point else lo
        else:
            floor, beyond_floor = _key(lo, dtype), reach
            ceiling, beyond_ceiling = _key(hi, dtype), above
        if following is not None:  # a missed bracket nearly always means many scores at its end
            lo = hi = following
        elif beyond_floor - beyond_ceiling <= room:
            lo, hi = _value(floor, dtype), _value(ceiling, dtype)
        else:
            lo = hi = _value((floor + ceiling) // 2, dtype)
    if lo == -_INF and point:
        raise _out_of_range(k, above)
    if point:
        return lo, _share(parts, lo, k)
    threshold = _kth([part.values for part in parts if part.values is not None], k - above)
    return threshold, _share(parts, threshold, k)


def _bracket(scores: Sequence[Tensor], k: int, total: int) -> tuple[float, float]:
    """Two values with the k-th largest very likely strictly between; equal where ties abound."""
    stride = max(1, total // min(_SAMPLE, max(1 << 10, total // 128)))
    while math.gcd(stride, 2 * 3 * 5 * 7) != 1:  # meet every row, column and tap of a kernel
        stride += 1
    dtype = _working_dtype(scores)
    sample, start = [], 0
    for tensor in scores:
        # Copied, so as not to hold on to the flat copy of a tensor that is not contiguous.
        sample.append(tensor.reshape(-1)[-start % stride :: stride].to(dtype, copy=True))
        start += tensor.numel()
    size = sum(map(len, sample))
    rank = k / total * size
    margin = _SPREADS * (math.sqrt(rank * (1 - k / total)) + 1)
    first, last = math.floor(rank - margin), math.ceil(rank + margin)
    hi = _kth(sample, first) if first > 0 else _INF
    lo = _kth(sample, last) if last <= size else -_INF
    return lo, hi


def _survey(scores: Sequence[Tensor], lo: float, hi: float, room: int) -> list[_Part]:
    """Count every chunk against the open bracket (lo, hi), or the point lo where they are equal.

    What lies in an open bracket is copied as long as no more than `room` scores are.
    """
    parts = []
    for owner, chunk in _chunks(scores):
        if lo == hi:
            above, inside = chunk > hi, chunk == hi
        else:
            above = chunk >= hi
            inside = (chunk > lo) ^ above
        count = _count(inside)
        room -= count
        values = _pick(chunk, inside) if lo < hi and room >= 0 else None
        parts.append(_Part(owner, _count(above), count, values))
    return parts


def _share(parts: Sequence[_Part], threshold: float, k: int) -> list[_Share]:
    """Give every chunk what lies above the threshold, then ties to the first chunks until k."""
    rows = []
    for part in parts:
        above, equal = part.above, part.inside
        if part.values is not None:
            values = _native(part.values)
            above, equal = above + _count(values > threshold), _count(values == threshold)
        rows.append((part.owner, above, equal))
    left = k - sum(above for _, above, _ in rows)
    shares = []
    for owner, above, equal in rows:
        shares.append(_Share(owner, above, equal, min(equal, left)))
        left -= shares[-1].ties
    return shares


def _chunks(scores: Sequence[Tensor]) -> Iterator[tuple[int, Any]]:
    """(index of the tensor, flat piece of it in the working dtype), in order, none too large."""
    dtype = _working_dtype(scores)
    for owner, tensor in enumerate(scores):
        for chunk in tensor.reshape(-1).split(_chunk_size(tensor)):
            yield owner, _native(chunk.to(dtype))


def _chunk_size(tensor: Tensor) -> int:
    """Scores per chunk: within a CPU's cache; on accelerators fewer, longer launches."""
    return 1 << (18 if tensor.device.type == "cpu" else 24)


def _native(values: Tensor) -> Any:
    """The same memory as a numpy array on a CPU; the tensor itself on accelerators."""
    return values.numpy() if values.device.type == "cpu" else values


def _count(mask: Any) -> int:
    return int(mask.count_nonzero() if isinstance(mask, Tensor) else np.count_nonzero(mask))


def _pick(values: Any, mask: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values[mask]
    return torch.from_numpy(np.compress(mask, values))


def _kth(pieces: Sequence[Tensor], k: int) -> float:
    """The k-th largest of a few scores, k from 1.

    Accelerators sort: torch.kthvalue may be refused there as nondeterministic.
    """
    index = sum(map(len, pieces)) - k
    native = [_native(piece.to(pieces[0].device)) for piece in pieces]
    if isinstance(native[0], Tensor):
        return float(torch.cat(native).sort().values[index])
    return float(np.partition(np.concatenate(native), index)[index])


def _working_dtype(scores: Sequence[Tensor]) -> torch.dtype:
    """float64 if any tensor is, else float32: both hold half precision values exactly."""
    return torch.float64 if any(x.dtype == torch.float64 for x in scores) else torch.float32


def _key(value: float, dtype: torch.dtype) -> int:
    """An integer that orders like the float: negative floats get their magnitude bits flipped."""
    signed, magnitude = _integers(dtype)
    bits = int(torch.tensor(value, dtype=dtype).view(signed))
    return bits if bits >= 0 else bits ^ magnitude


def _value(key: int, dtype: torch.dtype) -> float:
    """The float with this key; keys beyond the infinities give the infinities."""
    signed, magnitude = _integers(dtype)
    key = min(max(key, _key(-_INF, dtype)), _key(_INF, dtype))
    return float(torch.tensor(key if key >= 0 else key ^ magnitude, dtype=signed).view(dtype))


def _integers(dtype: torch.dtype) -> tuple[torch.dtype, int]:
    if dtype == torch.float64:
        return torch.int64, (1 << 63) - 1
    return torch.int32, (1 << 31) - 1
