"""Operations that lay entries out in another way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regrow.model.coupling.indices import Dim
from regrow.model.coupling.rules.other import bind
from regrow.model.coupling.rules.table import rule
from regrow.model.coupling.tracer import Call, Tracer


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "_reshape_copy")
@rule("view_copy", "squeeze", "unsqueeze", "squeeze_", "unsqueeze_")
def reshape(tracer: Tracer, call: Call) -> None:
    """Dimensions are merged, and split: (a, b, c) seen as (a b, c) or back.

    An index of a merged dimension goes with any of its parts; an index of a split one goes only if
    all that it stands for go, so that heads, or groups of channels, become the units.
    """
    source, out = call["self"], call.outputs[0]
    value = tracer.value(source)
    dims = regroup(tracer, value.dims, call.shape, out.shape)
    tracer.site(tuple(out.shape), dims)
    tracer.give(out, dims, like=[value], zero=value.zero)


def regroup(
    tracer: Tracer, dims: Sequence[Dim], before: Sequence[int], after: Sequence[int]
) -> list[Dim]:
    """The dimensions of a tensor seen in another shape."""
    found: list[Dim] = []
    i = j = 0
    while i < len(before) or j < len(after):
        start, begin = i, j
        old = new = 1
        if i < len(before):
            old, i = before[i], i + 1
        if j < len(after):
            new, j = after[j], j + 1
        while old != new:
            if old < new:
                old, i = old * before[i], i + 1
            else:
                new, j = new * after[j], j + 1
        if i - start == 1 and j - begin == 1:
            found.append(dims[start])
            continue
        merged = tracer.indices.merge(dims[start:i], before[start:i], tracer.where("merged"))
        found += tracer.indices.split(merged, after[begin:j]) if j > begin else []
    return found


@rule("permute", "permute_copy")
def permute(tracer: Tracer, call: Call) -> None:
    """Dimensions in another order."""
    value = tracer.value(call["self"])
    dims = [value.dims[axis] for axis in call["dims"]]
    tracer.give(call.outputs[0], dims, like=[value], zero=value.zero)


@rule("transpose", "transpose_", "t", "t_", "swapaxes", "transpose_copy", "t_copy")
def transpose(tracer: Tracer, call: Call) -> None:
    """Two dimensions change places."""
    value = tracer.value(call["self"])
    dims = list(value.dims)
    if "dim0" in call.arguments:
        a, b = call["dim0"], call["dim1"]
        dims[a], dims[b] = dims[b], dims[a]
    else:
        dims.reverse()
    tracer.give(call.outputs[0], dims, like=[value], zero=value.zero)


@rule("expand", "expand_copy")
def expand(tracer: Tracer, call: Call) -> None:
    """Dimensions of one index are repeated."""
    source, out = call["self"], call.outputs[0]
    value = tracer.value(source)
    new = out.dim() - source.dim()
    dims: list[Dim] = [None] * new
    for i, (dim, size) in enumerate(zip(value.dims, source.shape, strict=True)):
        grown = out.shape[new + i]
        dims.append(tracer.indices.fresh(grown) if size == 1 < grown < 65536 else dim)
    tracer.site(tuple(out.shape), dims)
    tracer.give(out, dims, like=[value], zero=value.zero and source.shape == out.shape)


@rule("as_strided", "as_strided_")
def as_strided(tracer: Tracer, call: Call) -> None:
    """Any layout: understood where the sizes stay."""
    source, out = call["self"], call.outputs[0]
    value = tracer.value(source)
    if source.shape != out.shape:
        bind(tracer, call, "laid out by strides")
        return
    tracer.give(out, value.dims, like=[value], zero=value.zero)


@rule("repeat")
def repeat(tracer: Tracer, call: Call) -> None:
    """All indices of a dimension, several times one behind the other."""
    source, out = call["self"], call.outputs[0]
    value, times = tracer.value(source), call["repeats"]
    dims: list[Dim] = [None] * (out.dim() - source.dim())
    for dim, n in zip(value.dims, times[len(dims) :], strict=True):
        dims.append(None if dim is None else np.tile(dim, n))
    tracer.give(out, dims, like=[value], zero=value.zero)


@rule("cat", "concat")
def concatenate(tracer: Tracer, call: Call) -> None:
    """One behind the other in a dimension; the same in all others."""
    tensors: list[Tensor] = [each for each in call["tensors"] if each.numel()]
    out = call.outputs[0]
    values = [tracer.value(each) for each in tensors]
    axis = call["dim"] % out.dim()
    dims = list(values[0].dims)
    for value in values[1:]:
        for i, dim in enumerate(value.dims):
            if i != axis:
                dims[i] = tracer.indices.equate(dims[i], dim)
    parts = [
        (value.dims[axis], each.shape[axis]) for value, each in zip(values, tensors, strict=True)
    ]
    dims[axis] = join(tracer, parts)
    tracer.give(out, dims, like=values, zero=all(value.zero for value in values))


@rule("stack")
def stack(tracer: Tracer, call: Call) -> None:
    """Along a new dimension, which keeps its size; the same in all others."""
    values = [tracer.value(each) for each in call["tensors"]]
    dims = list(values[0].dims)
    for value in values[1:]:
        dims = [tracer.indices.equate(a, b) for a, b in zip(dims, value.dims, strict=True)]
    dims.insert(call["dim"] % (len(dims) + 1), None)
    tracer.give(call.outputs[0], dims, like=values, zero=all(value.zero for value in values))


def join(tracer: Tracer, parts: Sequence[tuple[Dim, int]]) -> Dim:
    """One dimension behind another; fixed ones of (classes, size) get classes of their own."""
    if all(dim is None for dim, _ in parts):
        return None
    pieces = []
    for dim, size in parts:
        if dim is None:
            dim = tracer.indices.fresh(size)
            tracer.indices.fix(dim, tracer.where("beside entries of fixed number"))
        pieces.append(dim)
    return np.concatenate(pieces)


@rule(
    "split", "split_with_sizes", "unsafe_split", "unsafe_chunk", "chunk", "unsafe_split_with_sizes"
)
@rule("split_copy", "split_with_sizes_copy")
def split(tracer: Tracer, call: Call) -> None:
    """Equal parts of a dimension lose the same indices; unequal ones lose none, for code says where
    they begin."""
    source, axis = call["self"], call["dim"]
    value = tracer.value(source)
    axis %= source.dim()
    whole = value.dims[axis]
    sizes = [out.shape[axis] for out in call.outputs]
    if whole is not None and len(set(sizes)) > 1:
        tracer.indices.fix(whole, tracer.where("split into unequal parts"))
    elif whole is not None:
        parts = whole.reshape(len(sizes), -1)
        for part in parts[1:]:
            tracer.indices.equate(parts[0], part)
    start = 0
    for out, size in zip(call.outputs, sizes, strict=True):
        dims = list(value.dims)
        dims[axis] = None if whole is None else whole[start : start + size]
        start += size
        tracer.site(tuple(out.shape), [dims[axis]])
        tracer.give(out, dims, like=[value], zero=value.zero)


@rule("slice", "narrow", "slice_copy")
def slice_(tracer: Tracer, call: Call) -> None:
    """Some indices of a dimension: which, the code says, unless they are all or an equal share."""
    source, out, axis = call["self"], call.outputs[0], call["dim"]
    value = tracer.value(source)
    dims, size = list(value.dims), source.shape[axis]
    whole = dims[axis]
    if whole is not None and out.shape[axis] != size:
        start = call["start"] or 0
        start = max(0, start + size if start < 0 else start)
        length, step = out.shape[axis], call.arguments.get("step") or 1
        if step == 1 and length and size % length == 0 and start % length == 0:
            parts = whole.reshape(-1, length)
            for part in parts[1:]:
                tracer.indices.equate(parts[0], part)
        else:
            tracer.indices.fix(whole, tracer.where("a slice between given places"))
        dims[axis] = whole[start::step][:length]
        tracer.site(tuple(out.shape), [dims[axis]])
    tracer.give(out, dims, like=[value], zero=value.zero)


@rule("select", "unbind", "select_copy", "unbind_copy")
def select(tracer: Tracer, call: Call) -> None:
    """One index of a dimension, or each, as a tensor of its own: the dimension keeps its size."""
    value = tracer.value(call["self"])
    axis = call["dim"] % len(value.dims)
    tracer.indices.fix(value.dims[axis], tracer.where("taken by number"))
    dims = [dim for i, dim in enumerate(value.dims) if i != axis]
    for out in call.outputs:
        tracer.give(out, dims, like=[value], zero=value.zero)


@rule("view_as_complex", "view_as_real")
def parts(tracer: Tracer, call: Call) -> None:
    """Real and imaginary parts, in a last dimension of two that keeps its size."""
    value, out = tracer.value(call["self"]), call.outputs[0]
    if call.name == "aten.view_as_complex":
        tracer.indices.fix(value.dims[-1], tracer.where("a complex number's parts"))
    dims = [*value.dims[: out.dim()], *[None] * (out.dim() - len(value.dims))]
    tracer.give(out, dims, like=[value], zero=value.zero)


@rule("pixel_shuffle")
def pixel_shuffle(tracer: Tracer, call: Call) -> None:
    """r x r neighbouring channels become the pixels of one: they stay or go together."""
    source, out, r = call["self"], call.outputs[0], call["upscale_factor"]
    value = tracer.value(source)
    *batch, channels, _, _ = value.dims
    outer = tracer.indices.split(channels, [out.shape[-3], r, r])
    for inner in outer[1:]:
        tracer.indices.fix(inner, tracer.where("spread over pixels"))
    tracer.give(out, [*batch, outer[0], None, None], like=[value], zero=value.zero)


@rule("pixel_unshuffle")
def pixel_unshuffle(tracer: Tracer, call: Call) -> None:
    """The pixels of a channel become r x r channels: they stay or go together."""
    source, out, r = call["self"], call.outputs[0], call["downscale_factor"]
    value = tracer.value(source)
    *batch, channels, _, _ = value.dims
    dim = None if channels is None else np.repeat(channels, r * r)
    tracer.give(out, [*batch, dim, None, None], like=[value], zero=value.zero)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(tracer: Tracer, call: Call) -> None:
    """Channels (groups, rest) in the order (rest, groups)."""
    source, groups = call["self"], call["groups"]
    value = tracer.value(source)
    parts = tracer.indices.split(value.dims[1], [groups, source.shape[1] // groups])
    dims = list(value.dims)
    sizes = [source.shape[1] // groups, groups]
    dims[1] = tracer.indices.merge(parts[::-1], sizes, tracer.where("shuffled"))
    tracer.give(call.outputs[0], dims, like=[value], zero=value.zero)


@rule("embedding")
def embedding(tracer: Tracer, call: Call) -> None:
    """Rows by number: words stay, features pass."""
    weight, indices = tracer.value(call["weight"]), tracer.value(call["indices"])
    tracer.turn(call["weight"])
    tracer.indices.fix(weight.dims[0], tracer.where("an embedding's words"))
    out = call.outputs[0]
    dims: list[Dim] = [*indices.dims, weight.dims[1]]
    tracer.give(out, dims, like=[weight, indices], zero=weight.zero)


@rule("index_select", "gather", "take_along_dim")
def pick(tracer: Tracer, call: Call) -> None:
    """Indices of one dimension by number: it keeps its size; with gather, all do."""
    value, numbers = tracer.value(call["self"]), tracer.value(call.tensors[1])
    axis = (call["dim"] or 0) % len(value.dims)
    dims = list(value.dims)
    for i, dim in enumerate(dims):
        if i == axis or call.name != "aten.index_select":
            tracer.indices.fix(dim, tracer.where("taken by number"))
            dims[i] = None
    tracer.give(call.outputs[0], dims, like=[value, numbers], zero=value.zero)


@rule("index", "_unsafe_index")
def index(tracer: Tracer, call: Call) -> None:
    """Entries by number: dimensions that are numbered keep their sizes, all others pass."""
    value = tracer.value(call["self"])
    like = [tracer.value(each) for each in call.tensors]
    dims = _indexed(tracer, value.dims, call["indices"], call.outputs[0].dim())
    tracer.give(call.outputs[0], dims, like=like, zero=value.zero)


def _indexed(
    tracer: Tracer, dims: Sequence[Dim], indices: Sequence[Tensor | None], rank: int
) -> list[Dim]:
    used, at = [], 0
    for each in indices:
        taken = 1 if each is None or each.dtype != torch.bool else each.dim()
        used += [] if each is None else list(range(at, at + taken))
        at += taken
    for i in used:
        tracer.indices.fix(dims[i], tracer.where("taken by number"))
    rest = [dim for i, dim in enumerate(dims) if i not in used]
    new: list[Dim] = [None] * (rank - len(rest))
    together = bool(used) and used == list(range(used[0], used[-1] + 1))
    at = used[0] if together else 0
    return rest[:at] + new + rest[at:]


@rule("flip", "roll", "rot90", "cumsum", "cumprod", "sort", "topk", "argsort", "flip_")
@rule("cummax", "cummin")
def along(tracer: Tracer, call: Call) -> None:
    """Entries trade places or add up along some dimensions, which keep their indices."""
    value = tracer.value(call["self"])
    axes = call.arguments.get("dims", call.arguments.get("dim"))
    axes = range(len(value.dims)) if axes in (None, []) else axes
    what = call.name.removeprefix("aten.")
    for axis in [axes] if isinstance(axes, int) else axes:
        tracer.indices.fix(value.dims[axis], tracer.where(f"{what} along it"))
    for out in call.outputs:
        same = zip(value.dims, call.shape, out.shape, strict=True)
        dims = [dim if before == after else None for dim, before, after in same]
        tracer.give(out, dims, like=[value], zero=False)


@rule("tril", "triu", "tril_", "triu_")
def triangle(tracer: Tracer, call: Call) -> None:
    """Entries above or below a diagonal of the last two dimensions, which keep their indices."""
    value = tracer.value(call["self"])
    for dim in value.dims[-2:]:
        tracer.indices.fix(dim, tracer.where("a triangle of it"))
    tracer.give(call.outputs[0], value.dims, like=[value], zero=value.zero)


@rule("glu")
def glu(tracer: Tracer, call: Call) -> None:
    """One half of a dimension times the sigmoid of the other: they lose the same indices."""
    value, out = tracer.value(call["self"]), call.outputs[0]
    axis, dims = call["dim"] % out.dim(), list(value.dims)
    whole = dims[axis]
    if whole is not None:
        first, second = np.split(whole, 2)
        dims[axis] = tracer.indices.equate(first, second)
    tracer.give(out, dims, like=[value], zero=value.zero)
