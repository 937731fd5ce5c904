"""Operations on pixels, channel by channel."""

from __future__ import annotations

from regrow.model.coupling.indices import Dim
from regrow.model.coupling.rules.shape import join
from regrow.model.coupling.rules.table import rule
from regrow.model.coupling.tracer import Call, Tracer


@rule("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d_with_indices", "max_pool2d")
@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
@rule(
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "max_pool1d", "max_pool3d"
)
@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d")
@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d")
@rule("upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d", "upsample_linear1d")
@rule("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact1d")
@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "grid_sampler_2d")
@rule("replication_pad1d", "replication_pad2d", "replication_pad3d", "grid_sampler_3d")
def pixels(tracer: Tracer, call: Call) -> None:
    """Pooling, resizing and padding by neighbours: channels pass, pixels are fixed."""
    source = call["input"] if "input" in call.arguments else call["self"]
    value = tracer.value(source)
    like = [tracer.value(each) for each in call.tensors]
    spatial = _spatial(call.name)
    grid = tracer.value(call["grid"]).dims if "grid" in call.arguments else ()
    for dim in (*value.dims[-spatial:], *grid):
        tracer.indices.fix(dim, tracer.where("pooled, resized or padded along it"))
    for out in call.outputs:
        dims = [*value.dims[: out.dim() - spatial], *[None] * spatial]
        tracer.give(out, dims, like=like, zero=value.zero)


def _spatial(name: str) -> int:
    return next(int(name[i - 1]) for i in range(len(name), 0, -1) if name[i - 1 : i + 1] in _ENDS)


_ENDS = ("1d", "2d", "3d")


@rule("constant_pad_nd", "pad")
def pad(tracer: Tracer, call: Call) -> None:
    """Entries beside those of a dimension: of pixels, or channels of their own, whose number the
    code must be able to change."""
    source, out, sizes = call["self"], call.outputs[0], call["pad"]
    value = tracer.value(source)
    dims: list[Dim] = list(value.dims)
    for i in range(len(sizes) // 2):
        axis = source.dim() - 1 - i
        before, after = sizes[2 * i], sizes[2 * i + 1]
        dim = dims[axis]
        if dim is None or before == after == 0:
            continue
        if min(before, after) < 0:
            tracer.indices.fix(dim, tracer.where("cut at given places"))
            dims[axis] = None
            continue
        ends = [tracer.indices.fresh(size) if size else None for size in (before, after)]
        for size, end in zip((before, after), ends, strict=True):
            tracer.site((size,), (end,))
        parts = [(ends[0], before), (dim, source.shape[axis]), (ends[1], after)]
        dims[axis] = join(tracer, [part for part in parts if part[1]])
    tracer.give(out, dims, like=[value], zero=value.zero and not call.arguments.get("value"))


@rule("im2col", "col2im", "unfold_backward")
def patches(tracer: Tracer, call: Call) -> None:
    """Channels and the places of a kernel as one dimension, channels first."""
    source, out = call["self"], call.outputs[0]
    value = tracer.value(source)
    if call.name != "aten.im2col" or source.dim() != 4:
        for dim in value.dims:
            tracer.indices.fix(dim, tracer.where("folded"))
        tracer.give(out, [None] * out.dim(), like=[value], zero=False)
        return
    for dim in value.dims[2:]:
        tracer.indices.fix(dim, tracer.where("folded"))
    places = out.shape[1] // source.shape[1]
    dim = tracer.indices.merge([value.dims[1], None], [source.shape[1], places], "")
    tracer.give(out, [value.dims[0], dim, None], like=[value], zero=value.zero)


@rule("unfold")
def windows(tracer: Tracer, call: Call) -> None:
    """Windows along a dimension, which keeps its size; a new last dimension holds each."""
    source, out = call["self"], call.outputs[0]
    value = tracer.value(source)
    axis = call["dimension"] % source.dim()
    tracer.indices.fix(value.dims[axis], tracer.where("unfolded"))
    dims = [None if i == axis else dim for i, dim in enumerate(value.dims)]
    tracer.give(out, [*dims, None], like=[value], zero=value.zero)
