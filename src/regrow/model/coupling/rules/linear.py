"""Sums of products: convolutions, matrix products, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from regrow.model.coupling.indices import Dim
from regrow.model.coupling.rules.pointwise import broadcast
from regrow.model.coupling.rules.table import rule
from regrow.model.coupling.tracer import Call, Tracer, Value


def contract(tracer: Tracer, a: Value, b: Value, left: Dim, right: Dim) -> None:
    """Sum over a dimension of both: what is removed from one is removed from the other.

    It may be removed only if the terms at removed indices are zero.
    """
    dim = tracer.indices.equate(left, right)
    if not (a.zero or b.zero):
        tracer.indices.fix(dim, tracer.where("summed over, though not zero where removed,"))


@rule("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution")
def convolution(tracer: Tracer, call: Call) -> None:
    """Weight (out, in / groups, ...), or (in, out / groups, ...) of a transposed one.

    Input channels are the weight's, output channels new. With groups, the units are whole groups,
    or the same place in each of them.
    """
    x, weight, out = call["input"], call["weight"], call.outputs[0]
    given, w, groups = tracer.value(x), tracer.value(weight), call["groups"]
    turned = call.arguments.get("transposed", False)
    ways = tracer.indices
    spatial = len(call["stride"])
    channel = out.dim() - spatial - 1
    name = tracer.name(weight)
    if turned:
        tracer.turn(weight)
    for dim in w.dims[2:]:
        ways.fix(dim, "the size of a kernel")
    for dim in given.dims[channel + 1 :]:
        ways.fix(dim, tracer.where("convolved over"))
    if groups == 1:
        ins, outs = (w.dims[0], w.dims[1]) if turned else (w.dims[1], w.dims[0])
        ways.equate(given.dims[channel], ins)
    else:
        mine = [groups, weight.shape[0] // groups]
        group, first = ways.split(w.dims[0], mine)
        theirs = [groups, x.shape[channel] // groups]
        other, second = ways.split(given.dims[channel], theirs)
        group = ways.equate(group, other)
        if turned:
            ways.equate(first, second)
            inner, size = w.dims[1], weight.shape[1]
        else:
            ways.equate(w.dims[1], second)
            inner, size = first, mine[1]
        outs = ways.merge([group, inner], [groups, size], tracer.where("grouped"))
        if name is not None:
            tracer.groups[name] = group
        if name != f"{tracer.module}.weight":  # not a layer of PyTorch's, whose number is known
            tracer.site((groups,), (group,))
    if call["bias"] is not None:
        outs = ways.equate(outs, tracer.value(call["bias"]).dims[0])
    dims = [*given.dims[:channel], outs, *[None] * spatial]
    pixels = math.prod((x if turned else out).shape[channel + 1 :])
    batch = out.shape[0] if channel else 1
    count = batch * pixels * math.prod(weight.shape[2:])
    tracer.work(count, zip(w.dims[:2], weight.shape[:2], strict=True))
    tracer.give(out, dims, like=[given, w], zero=w.zero)


@rule("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "linear", "addbmm", "matmul")
def product(tracer: Tracer, call: Call) -> None:
    """(..., m, k) by (..., k, n): the rows of one, the columns of the other, the sum over k."""
    names = [n for n in ("mat1", "batch1", "mat") if n in call.arguments] or ["self"]
    other = next(n for n in ("mat2", "batch2", "vec", "tensor", "other") if n in call.arguments)
    a, b, out = call[names[0]], call[other], call.outputs[0]
    left, right = tracer.value(a), tracer.value(b)
    tracer.turn(b)
    contract(tracer, left, right, left.dims[-1], right.dims[max(0, b.dim() - 2)])
    batch: list[Dim] = []
    if a.dim() == b.dim() == 3:
        batch = [tracer.indices.equate(left.dims[0], right.dims[0])]
        if batch[0] is not None:  # heads: they go as a whole
            for dim in (left.dims[-1], right.dims[-1]):
                tracer.indices.fix(dim, tracer.where("an attention head's inside"))
        if out.dim() == 2:  # added up over the batch
            tracer.indices.fix(batch.pop(), tracer.where("added up over it"))
    dims = [*batch]
    dims += [left.dims[-2]] if a.dim() > 1 else []
    dims += [right.dims[-1]] if b.dim() > 1 else []
    like = [left, right]
    # Rows or columns at removed indices are zero if the factor that has them is.
    zero = _zero(left, right, dims)
    if "input" in call.arguments or (names[0] != "self" and "self" in call.arguments):
        bias = call["input"] if "input" in call.arguments else call["self"]
        extra = tracer.value(bias)
        dims = broadcast(tracer, [(Value(tuple(dims)), out.shape), (extra, bias.shape)], out.dim())
        zero = zero and extra.zero
        like.append(extra)
    sizes = [*out.shape, a.shape[-1]]
    tracer.work(1, zip([*dims, left.dims[-1]], sizes, strict=True))
    tracer.give(out, dims, like=like, zero=zero)


def _zero(left: Value, right: Value, dims: Sequence[Dim]) -> bool:
    live = [dim is not None for dim in dims]
    if not any(live):
        return True
    columns = not live[-1] or right.zero
    rows = not any(live[:-1]) or left.zero
    return rows and columns


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention")
@rule("_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math")
@rule("_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable")
@rule("scaled_dot_product_attention", "_scaled_dot_product_attention_math_for_mps")
def attention(tracer: Tracer, call: Call) -> None:
    """softmax(q k' / sqrt(d)) v over (batch, heads, tokens, d): heads are units, d sets the scale.

    The tokens and the size of a head keep their sizes; with fewer key heads than query heads, the
    queries of one key head go with it.
    """
    q, k, v = (call[name] for name in ("query", "key", "value"))
    values = [tracer.value(each) for each in (q, k, v)]
    ways = tracer.indices
    for value in values:
        for dim in value.dims[-2:]:
            ways.fix(dim, tracer.where("an attention head's inside"))
    lead: list[Dim] = list(values[0].dims[:-2])
    for value, tensor in zip(values[1:], (k, v), strict=True):
        for i, dim in enumerate(value.dims[:-2]):
            if tensor.shape[i] == q.shape[i]:
                lead[i] = ways.equate(lead[i], dim)
                continue
            share = q.shape[i] // tensor.shape[i]
            outer, inner = ways.split(lead[i], [tensor.shape[i], share])
            ways.fix(inner, tracer.where("query heads of one key head"))
            ways.equate(outer, dim)
    mask = call.arguments.get("attn_mask", call.arguments.get("attn_bias"))
    if isinstance(mask, Tensor):
        value = tracer.value(mask)
        rank = q.dim()
        shape = (*q.shape[:-1], k.shape[-2])
        lead = broadcast(tracer, [(Value((*lead, None, None)), shape), (value, mask.shape)], rank)[
            :-2
        ]
        values.append(value)
    zero = values[2].zero
    tokens, others, size = q.shape[-2], k.shape[-2], q.shape[-1]
    count = tokens * others * (size + v.shape[-1])
    tracer.work(count, zip(lead, q.shape[:-2], strict=True))
    tracer.give(call.outputs[0], [*lead, None, values[2].dims[-1]], like=values, zero=zero)
    for out in call.outputs[1:]:
        tracer.give(out, [None] * out.dim(), like=values, zero=False)


@rule("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
def fused(tracer: Tracer, call: Call) -> None:
    """A whole layer as one operation: its parameters keep their sizes."""
    from regrow.model.coupling.rules.other import bind

    bind(tracer, call, "computed by a fused layer")
