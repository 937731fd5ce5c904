"""The table of operators, and what each leaves of eight features; see `coupling_ops`."""

from __future__ import annotations

import torch
from coupling_ops import (
    Op,
    aten,
    attended,
    fresh,
    grid,
    images,
    like,
    masked_attention,
    normed,
    ones,
    signals,
    tokens,
    vectors,
    volume_grid,
    volumes,
    written,
)
from torch.nn import functional as F

POINTWISE: dict[str, Op] = {
    **{
        name: vectors(lambda h, name=name: getattr(aten, name)(h))
        for name in (
            *("relu", "gelu", "silu", "hardswish", "hardsigmoid", "mish", "softplus", "hardtanh"),
            *(
                "leaky_relu",
                "elu",
                "celu",
                "selu",
                "softshrink",
                "hardshrink",
                "relu6",
                "log_sigmoid",
            ),
            *("clone", "detach", "alias", "contiguous", "resolve_conj", "resolve_neg"),
            *("lift_fresh", "sigmoid", "exp", "abs", "neg", "square", "tanh"),
            *("_to_copy", "lift_fresh_copy"),
        )
    },
    **{
        name: vectors(lambda h, name=name: getattr(aten, name)(h * 1))
        for name in (
            *("hardswish_", "hardsigmoid_", "mish_", "hardtanh_", "leaky_relu_", "elu_", "relu_"),
            *("detach_", "sigmoid_"),
        )
    },
    "glu": vectors(F.glu, 4),
    "prelu": vectors(lambda h: aten._prelu_kernel(h, ones(1))),
    "rrelu": vectors(lambda h: F.rrelu(h, training=False)),
    "masked_fill": vectors(lambda h: h.masked_fill(h > 0, 1.0)),
    "masked_fill_": vectors(lambda h: (h * 1).masked_fill_(h > 0, 1.0)),
    "dropout": vectors(lambda h: aten.native_dropout(h, 0.5, False)[0]),
    "where": vectors(lambda h: torch.where(h > 0, h, 2 * h)),
    "clamp": vectors(lambda h: h.clamp(min=0.25)),
    "a table": tokens(lambda h: h * ones(8) + ones(5, 1), "tied to a size"),
    "made by code": vectors(fresh),
    "made like it": vectors(like),
    "written into a part": vectors(written),
    "copied over": vectors(lambda h: torch.empty_like(h).copy_(h)),
    "copy": vectors(lambda h: aten.copy(torch.zeros_like(h), h)),
}

SHAPES: dict[str, Op] = {
    "view": tokens(lambda h: h.view(10, h.shape[-1])),
    "view_copy": tokens(lambda h: aten.view_copy(h, [10, h.shape[-1]])),
    "_unsafe_view": tokens(lambda h: aten._unsafe_view(h, [10, h.shape[-1]])),
    "_reshape_alias": vectors(
        lambda h: aten._reshape_alias(h, [2, 2, h.shape[-1]], [2 * h.shape[-1], h.shape[-1], 1])
    ),
    "squeeze": vectors(lambda h: h.unsqueeze(1).squeeze(1)),
    "squeeze_": vectors(lambda h: (h * 1).unsqueeze_(1).squeeze_(1)),
    "heads": tokens(lambda h: h.unflatten(-1, (4, -1)).transpose(1, 2).amax((1, 2)), 2),
    "merged with pixels": images(lambda h: h.flatten(1)),
    "permute": tokens(lambda h: h.permute(2, 0, 1), 8, 0),
    "permute_copy": tokens(lambda h: aten.permute_copy(h, [2, 0, 1]), 8, 0),
    "t": vectors(lambda h: h.t(), 8, 0),
    "t_": vectors(lambda h: (h * 1).t_(), 8, 0),
    "t_copy": vectors(aten.t_copy, 8, 0),
    "transpose_": tokens(lambda h: (h * 1).transpose_(1, 2), 8, 1),
    "transpose_copy": tokens(lambda h: aten.transpose_copy(h, 1, 2), 8, 1),
    "expand": tokens(lambda h: h[:, :1].expand(-1, 3, -1)),
    "expand_copy": tokens(lambda h: aten.expand_copy(h[:, :1], [2, 3, h.shape[-1]])),
    "as_strided": vectors(lambda h: h.as_strided(h.shape, h.stride())),
    "as_strided_": vectors(lambda h: (h * 1).as_strided_(h.shape, h.stride())),
    "as_strided of another shape": vectors(
        lambda h: h.as_strided((4, 4), (8, 2)), "laid out by strides"
    ),
    "repeat": vectors(lambda h: h.repeat(2, 3)),
    "repeat_interleave": vectors(lambda h: h.repeat_interleave(2, 1)),
    "cat": tokens(lambda h: torch.cat([h, h.flip(1), torch.zeros(0)], 1)),
    "cat of features": tokens(lambda h: torch.cat([h, ones(2, 5, 3), h], 2)),
    "stack": tokens(lambda h: torch.stack([h, -h], -2)),
    "split": vectors(lambda h: torch.cat(h.split(h.shape[1] // 2, 1)[::-1], 1), 4),
    "split_with_sizes": vectors(lambda h: torch.cat(h.split([h.shape[1] // 2] * 2, 1)), 4),
    "unequal split": vectors(lambda h: torch.cat(h.split([3, 5], 1)[::-1], 1), "unequal parts"),
    "chunk": vectors(lambda h: (lambda a, b: a * b)(*h.chunk(2, 1)), 4),
    "unsafe_split": tokens(lambda h: aten.unsafe_split(h, 2, 1)[0]),
    "unsafe_split_with_sizes": tokens(lambda h: aten.unsafe_split_with_sizes(h, [2, 3], 1)[0]),
    "split_copy": tokens(lambda h: aten.split_copy(h, 2, 1)[0]),
    "split_with_sizes_copy": tokens(lambda h: aten.split_with_sizes_copy(h, [2, 3], 1)[1]),
    "slice of half": vectors(lambda h: h[:, h.shape[1] // 2 :], 4),
    "slice": vectors(lambda h: h[:, 3:6], "a slice between given places"),
    "slice by steps": vectors(lambda h: h[:, ::2], "a slice between given places"),
    "slice_copy": tokens(lambda h: aten.slice_copy(h, 1, 1, 3)),
    "select": tokens(lambda h: h[:, 1]),
    "select_copy": tokens(lambda h: aten.select_copy(h, 1, -1)),
    "select of features": tokens(lambda h: h[..., 3], "taken by number"),
    "unbind": tokens(lambda h: h.unbind(1)[2]),
    "unbind_copy": tokens(lambda h: aten.unbind_copy(h, 1)[2]),
    "pixel_shuffle": images(lambda h: F.pixel_shuffle(h, 2), 2),
    "pixel_unshuffle": images(lambda h: F.pixel_unshuffle(h, 2)),
    "channel_shuffle": images(lambda h: F.channel_shuffle(h, 2), 4),
    "shuffled and added": images(lambda h: h + F.channel_shuffle(h, 2), ""),
    "embedding": vectors(lambda h: F.embedding(torch.arange(4), h)),
    "embedding of features": vectors(lambda h: F.embedding(torch.arange(4), h.t()), "words", -1),
    "index_select": tokens(lambda h: h.index_select(1, torch.tensor([0, 3]))),
    "index_select of features": vectors(
        lambda h: h.index_select(1, torch.tensor([0, 3])), "taken by number"
    ),
    "gather": vectors(lambda h: h.gather(1, torch.tensor([[0], [2], [1], [5]])), "taken by number"),
    "index": tokens(lambda h: h[:, torch.tensor([0, 3])]),
    "index of two": tokens(lambda h: h[torch.tensor([0, 1]), torch.tensor([0, 3])]),
    "_unsafe_index": tokens(lambda h: aten._unsafe_index(h, [None, torch.tensor([0, 3])])),
    "index of features": vectors(lambda h: h[:, torch.tensor([0, 3])], "taken by number"),
    "boolean index": tokens(lambda h: h[torch.arange(10).reshape(2, 5) % 2 == 0]),
    "boolean index of features": vectors(lambda h: h[h > -9.0], "taken by number", None),
    "flip": tokens(lambda h: h.flip(1)),
    "flip of features": vectors(lambda h: h.flip(1), "flip along it"),
    "triangles": images(lambda h: h.tril() + h.triu() + (h * 1).tril_() + (h * 1).triu_()),
    "roll": images(lambda h: h.roll((1, 1), (2, 3))),
    "rot90": images(lambda h: h.rot90(1, (2, 3))),
    "cumsum": tokens(lambda h: h.cumsum(1)),
    "cumprod": tokens(lambda h: h.cumprod(1)),
    "sort": tokens(lambda h: h.sort(1)[0]),
    "sort of features": vectors(lambda h: h.sort(1)[0], "sort along it"),
    "topk": tokens(lambda h: h.topk(2, 1)[0]),
    "topk of features": vectors(lambda h: h.topk(2, 1)[0], "topk along it"),
    "argsort": tokens(lambda h: h.argsort(1).float()),
}

SUMS: dict[str, Op] = {
    "mm": vectors(lambda h: ones(3, 4) @ h),
    "mm with itself": vectors(lambda h: h @ h.t()),
    "mm after exp": vectors(lambda h: h.exp() @ h.exp().t(), "not zero where removed"),
    "addmm": vectors(lambda h: torch.addmm(ones(3, 1), ones(3, 4), h)),
    "mv": vectors(lambda h: torch.mv(h.t(), ones(4))),
    "addmv": vectors(lambda h: torch.addmv(h[0], h.t(), ones(4))),
    "dot": vectors(lambda h: torch.dot(h[0], h[1]), 8, None),
    "bmm": tokens(lambda h: ones(2, 3, 5).bmm(h)),
    "baddbmm": tokens(lambda h: torch.baddbmm(h[:, :3], ones(2, 3, 5), h)),
    "addbmm": tokens(lambda h: torch.addbmm(ones(3, 1), ones(2, 3, 5), h)),
    "einsum": tokens(lambda h: torch.einsum("btc,bsc->bts", h, h), 8),
    "attention": tokens(attended, ""),
    "heads attend": tokens(masked_attention, 4),
    "convolution over features": tokens(
        lambda h: F.conv1d(h, ones(3, 5, 3), padding=1), "convolved over"
    ),
    "image convolution over features": vectors(
        lambda h: F.conv2d(h[:, None, None], ones(3, 1, 1, 1)).amax((-2, -1)), "convolved over"
    ),
    "sum": tokens(lambda h: h.sum(1)),
    "sum of features": vectors(lambda h: h.sum(1), 8, None),
    "sum after exp": vectors(lambda h: h.exp().sum(1), "sum over it", None),
    "sum after a power of two": vectors(lambda h: (2**h).sum(1), "sum over it", None),
    "sum after clamp": vectors(lambda h: h.clamp(min=0.5).sum(1), "sum over it", None),
    "sum after a shift": vectors(lambda h: (h + 1.5).sum(1), "sum over it", None),
    **{
        name: tokens(lambda h, name=name: getattr(torch, name)(h, 1))
        for name in ("mean", "amax", "amin", "var", "std", "logsumexp", "prod", "norm")
        if name != "norm"
    },
    **{
        f"{name} of features": vectors(
            lambda h, name=name: getattr(torch, name)(h, 1), f"{name} over it", None
        )
        for name in ("mean", "amax", "amin", "var", "std", "logsumexp", "prod")
    },
    "norm": tokens(lambda h: h.norm(dim=1)),
    "vector_norm": tokens(lambda h: torch.linalg.vector_norm(h, dim=1)),
    "var_mean": tokens(lambda h: torch.var_mean(h, 1)[0]),
    "std_mean": tokens(lambda h: torch.std_mean(h, 1)[0]),
    "max": tokens(lambda h: h.max(1)[0]),
    "min": tokens(lambda h: h.min(1)[0]),
    "median": tokens(lambda h: h.median(1)[0]),
    "cummin": tokens(lambda h: h.cummin(1)[0]),
    "cummax": tokens(lambda h: h.cummax(1)[0]),
    "cummax of features": vectors(lambda h: h.cummax(1)[0], "cummax"),
    "argmax": tokens(lambda h: h.argmax(1).float()),
    "argmin": tokens(lambda h: h.argmin(1).float()),
    "any and all": tokens(lambda h: (h > 0).any(1).float() + (h > 0).all(1).float()),
    "everything": vectors(lambda h: h.mean(), "mean over it", None),
    "softmax": tokens(lambda h: h.softmax(1)),
    "softmax of features": vectors(lambda h: h.softmax(1), "softmax over it"),
    "log_softmax": tokens(lambda h: h.log_softmax(1)),
    "_safe_softmax": tokens(lambda h: aten._safe_softmax(h, 1)),
    "layer norm of tokens": tokens(lambda h: F.layer_norm(h.transpose(1, 2), (5,)), 8, 1),
    "layer norm": tokens(lambda h: F.layer_norm(h, (8,)), "normalised over"),
    "rms norm": tokens(lambda h: F.rms_norm(h.transpose(1, 2), (5,)), 8, 1),
    "group norm": images(lambda h: F.group_norm(h, 4), "does not follow a cut"),
    "group norm over features": tokens(lambda h: F.group_norm(h, 5), "normalised over"),
    "batch norm": images(lambda h: normed(h)),
    "complex numbers": tokens(
        lambda h: torch.view_as_real(torch.complex(h, h) * torch.polar(ones(5, 1), ones(5, 1))).sum(
            -1
        )
    ),
    "pairs as complex numbers": tokens(
        lambda h: torch.view_as_real(torch.view_as_complex(h.reshape(2, 5, -1, 2))).flatten(2), 4
    ),
    "batch norm, functional": images(
        lambda h: aten._native_batch_norm_legit_no_training(
            h, None, None, h.new_zeros(h.shape[1]), h.new_ones(h.shape[1]), 0.1, 1e-5
        )[0]
    ),
    "batch norm without statistics": images(
        lambda h: aten._native_batch_norm_legit(h, None, None, True, 0.1, 1e-5)[0]
    ),
    "batch norm of the batch": images(lambda h: normed(h, True)),
    "instance norm": images(F.instance_norm),
    "instance norm over features": tokens(lambda h: F.instance_norm(h), "normalised over"),
    "weight norm": vectors(lambda h: torch._weight_norm(h, ones(4, 1), 0)),
    "weight norm of features": vectors(
        lambda h: torch._weight_norm(h, ones(1, 8), 1), "weight norm"
    ),
}

PIXELS: dict[str, Op] = {
    "max_pool1d": signals(lambda h: F.max_pool1d(h, 2)),
    "max_pool2d": images(lambda h: F.max_pool2d(h, 2)),
    "max_pool3d": volumes(lambda h: F.max_pool3d(h, 2)),
    "avg_pool1d": signals(lambda h: F.avg_pool1d(h, 2)),
    "avg_pool2d": images(lambda h: F.avg_pool2d(h, 2)),
    "avg_pool3d": volumes(lambda h: F.avg_pool3d(h, 2)),
    "adaptive_avg_pool1d": signals(lambda h: F.adaptive_avg_pool1d(h, 2)),
    "adaptive_avg_pool2d": images(lambda h: F.adaptive_avg_pool2d(h, 2)),
    "adaptive_avg_pool3d": volumes(lambda h: F.adaptive_avg_pool3d(h, 2)),
    "adaptive_max_pool1d": signals(lambda h: F.adaptive_max_pool1d(h, 2)),
    "adaptive_max_pool2d": images(lambda h: F.adaptive_max_pool2d(h, 2)),
    "adaptive_max_pool3d": volumes(lambda h: F.adaptive_max_pool3d(h, 2)),
    "pool over features": tokens(lambda h: F.adaptive_max_pool1d(h, 1)[..., 0], "pooled", 1),
    "average over features": tokens(lambda h: F.avg_pool1d(h, 2), "pooled"),
    "fractional": images(
        lambda h: aten.fractional_max_pool2d(
            h, [2, 2], [3, 3], 0.5 * torch.ones(2, 1, 2).expand(2, h.shape[1], 2)
        )[0]
    ),
    "upsample 1d": signals(lambda h: F.interpolate(h, scale_factor=2)),
    "upsample 2d": images(lambda h: F.interpolate(h, scale_factor=2)),
    "upsample 3d": volumes(lambda h: F.interpolate(h, scale_factor=2)),
    "upsample exact": images(lambda h: F.interpolate(h, scale_factor=2, mode="nearest-exact")),
    "upsample exact 1d": signals(lambda h: F.interpolate(h, scale_factor=2, mode="nearest-exact")),
    "linear": signals(lambda h: F.interpolate(h, scale_factor=2, mode="linear")),
    "bilinear": images(lambda h: F.interpolate(h, scale_factor=2, mode="bilinear")),
    "bicubic": images(lambda h: F.interpolate(h, scale_factor=2, mode="bicubic")),
    "trilinear": volumes(lambda h: F.interpolate(h, scale_factor=2, mode="trilinear")),
    "smooth bilinear": images(
        lambda h: F.interpolate(h, scale_factor=0.5, mode="bilinear", antialias=True)
    ),
    "smooth bicubic": images(
        lambda h: F.interpolate(h, scale_factor=0.5, mode="bicubic", antialias=True)
    ),
    "reflection 1d": signals(lambda h: F.pad(h, (1, 1), mode="reflect")),
    "reflection 2d": images(lambda h: F.pad(h, (1, 1, 1, 1), mode="reflect")),
    "reflection 3d": volumes(lambda h: F.pad(h, (1, 1) * 3, mode="reflect")),
    "replication 1d": signals(lambda h: F.pad(h, (1, 1), mode="replicate")),
    "replication 2d": images(lambda h: F.pad(h, (1, 1, 1, 1), mode="replicate")),
    "replication 3d": volumes(lambda h: F.pad(h, (1, 1) * 3, mode="replicate")),
    "circular": images(lambda h: F.pad(h, (1, 1, 1, 1), mode="circular")),
    "grid sampler 2d": images(lambda h: F.grid_sample(h, grid(), align_corners=False)),
    "grid sampler 3d": volumes(lambda h: F.grid_sample(h, volume_grid(), align_corners=False)),
    "pad": images(lambda h: F.pad(h, (1, 1, 2, 0))),
    "pad of features": vectors(lambda h: F.pad(h, (1, 2))),
    "crop of features": vectors(lambda h: F.pad(h, (-1, -2)), "cut at given places"),
    "shift of features": vectors(lambda h: F.pad(h, (1, -1)), ""),
    "shift back": vectors(lambda h: F.pad(h, (-1, 1)), ""),
    "im2col": images(lambda h: F.unfold(h, 2)),
    "im2col over features": tokens(lambda h: F.unfold(h[:, None], 2)[..., 0], "", 1),
    "col2im": images(lambda h: F.fold(F.unfold(h, 2, stride=2), (6, 6), 2, stride=2), "folded"),
    "windows": signals(lambda h: h.unfold(2, 3, 1).amax(-1)),
    "windows of features": vectors(lambda h: h.unfold(1, 3, 1).amax(-1), "unfolded"),
    "local response": images(lambda h: F.local_response_norm(h, 3), ""),
    "no rule": vectors(lambda h: torch.fft.fft(h).abs(), "no rule for aten._fft_r2c"),
}

TABLE: dict[str, Op] = {
    f"{kind}: {name}": op
    for kind, table in (
        ("pointwise", POINTWISE),
        ("shapes", SHAPES),
        ("sums", SUMS),
        ("pixels", PIXELS),
    )
    for name, op in table.items()
}
