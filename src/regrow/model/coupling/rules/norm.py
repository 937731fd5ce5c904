"""Normalisations and reductions."""

from __future__ import annotations

from torch import Tensor

from regrow.model.coupling.indices import Dim
from regrow.model.coupling.rules.table import rule
from regrow.model.coupling.tracer import Call, Tracer

_ZERO_OF_ZEROS = ("sum", "mean", "amax", "amin", "norm", "linalg_vector_norm")


@rule("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit")
@rule("_native_batch_norm_legit_no_training", "_batch_norm_with_update", "batch_norm")
@rule("_batch_norm_no_update", "_native_batch_norm_legit_functional", "_batch_norm_impl_index")
def batch_norm(tracer: Tracer, call: Call) -> None:
    """Each channel alone: scale, shift and statistics go with it."""
    x = call["input"]
    value = tracer.value(x)
    # By statistics of the tensor itself, as instance norms and normalised weights do.
    running = isinstance(call.arguments.get("running_mean"), Tensor)
    own = bool(call.arguments.get("training")) and not running
    if own:
        for other in (value.dims[0], *value.dims[2:]):
            tracer.indices.fix(other, tracer.where("normalised over"))
    dim, like = value.dims[1], [value]
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = call.arguments.get(name)
        if isinstance(tensor, Tensor):
            like.append(tracer.value(tensor))
            dim = tracer.indices.equate(dim, like[-1].dims[0])
    tracer.norms[tracer.module] = dim
    # A removed channel has neither scale nor shift; without them, a running mean would remain.
    affine = isinstance(call.arguments.get("weight"), Tensor)
    zero = like[1].zero if affine else value.zero and own
    dims = [value.dims[0], dim, *value.dims[2:]]
    tracer.give(call.outputs[0], dims, like=like, zero=zero)
    for out in call.outputs[1:]:  # what the backward pass needs; in evaluation mode nothing
        if out.numel():
            tracer.give(out, [dim if out.dim() == 1 else None] * out.dim(), like=like, zero=False)


@rule("native_layer_norm", "layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(tracer: Tracer, call: Call) -> None:
    """Mean and variance over the last dimensions, which keep their sizes: zeros would count."""
    value = tracer.value(call["input"])
    normal = len(call["normalized_shape"])
    for dim in value.dims[-normal:]:
        tracer.indices.fix(dim, tracer.where("normalised over"))
    like = [value]
    for name in ("weight", "bias"):
        tensor = call.arguments.get(name)
        if isinstance(tensor, Tensor):
            like.append(tracer.value(tensor))
            for dim in like[-1].dims:
                tracer.indices.fix(dim, tracer.where("normalised over"))
    tracer.give(call.outputs[0], value.dims, like=like, zero=False)
    for out in call.outputs[1:]:
        lead: list[Dim] = [*value.dims[:-normal], *[None] * normal]
        tracer.give(out, lead[: out.dim()], like=like, zero=False)


@rule("native_group_norm", "group_norm")
def group_norm(tracer: Tracer, call: Call) -> None:
    """Mean and variance over the channels of each group: only whole groups can go."""
    x = call["input"]
    value = tracer.value(x)
    groups = call["group"] if "group" in call.arguments else call["num_groups"]
    channels, ways = x.shape[1], tracer.indices
    dim, like = value.dims[1], [value]
    affine = False
    for name in ("weight", "bias"):
        tensor = call.arguments.get(name)
        if isinstance(tensor, Tensor):
            affine = True
            like.append(tracer.value(tensor))
            dim = ways.equate(dim, like[-1].dims[0])
    group, inner = ways.split(dim, [groups, channels // groups])
    for other in (inner, *value.dims[2:]):
        ways.fix(other, tracer.where("normalised over"))
    tracer.norms[tracer.module] = dim
    owner = tracer.name(call["weight"]) if affine else tracer.module
    if groups == 1:
        ways.fix(dim, tracer.where("normalised over"))
    elif owner is not None:
        tracer.groups[owner] = group
    dim = ways.merge([group, inner], [groups, channels // groups], "") if groups > 1 else None
    zero = affine or value.zero
    tracer.give(call.outputs[0], [value.dims[0], dim, *value.dims[2:]], like=like, zero=zero)
    for out in call.outputs[1:]:
        tracer.give(out, [value.dims[0], group][: out.dim()], like=like, zero=False)


@rule(
    "sum",
    "mean",
    "amax",
    "amin",
    "var",
    "std",
    "var_mean",
    "norm",
    "linalg_vector_norm",
    "logsumexp",
)
@rule("max", "min", "prod", "any", "all", "argmax", "argmin", "std_mean", "median")
def reduce(tracer: Tracer, call: Call) -> None:
    """Dimensions reduced keep their sizes; only a sum may lose terms that are zero."""
    source = call["self"]
    value = tracer.value(source)
    axes = call.arguments.get("dim")
    if axes is None or axes == []:
        axes = range(source.dim())
    axes = {axis % max(1, source.dim()) for axis in ([axes] if isinstance(axes, int) else axes)}
    harmless = value.zero and call.name == "aten.sum"
    for axis in axes:
        if source.dim() and not harmless:
            tracer.indices.fix(
                value.dims[axis], tracer.where(f"{call.name.removeprefix('aten.')} over it")
            )
    keep = bool(call.arguments.get("keepdim", False))
    dims = [None if i in axes else dim for i, dim in enumerate(value.dims) if keep or i not in axes]
    zero = value.zero and call.name[5:] in (
        "sum",
        "mean",
        "amax",
        "amin",
        "norm",
        "linalg_vector_norm",
    )
    for out in call.outputs:
        fits = out.dim() == len(dims)
        tracer.give(out, dims if fits else [None] * out.dim(), like=[value], zero=zero)


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax")
def softmax(tracer: Tracer, call: Call) -> None:
    """Its dimension keeps its size: a removed entry would take its share."""
    value = tracer.value(call["self"])
    axis = call["dim"] % max(1, len(value.dims))
    tracer.indices.fix(value.dims[axis], tracer.where("softmax over it"))
    tracer.give(call.outputs[0], value.dims, like=[value], zero=False)


@rule("_weight_norm_interface", "_weight_norm")
def weight_norm(tracer: Tracer, call: Call) -> None:
    """v g / norm(v), over all dimensions but one, which keeps its size: 0 / 0 is nothing."""
    v, g = tracer.value(call["v"]), tracer.value(call["g"])
    tracer.indices.fix(v.dims[call["dim"]], tracer.where("weight norm along it"))
    for dim in g.dims:
        tracer.indices.fix(dim, tracer.where("weight norm along it"))
    tracer.give(call.outputs[0], v.dims, like=[v, g], zero=v.zero)
    for out in call.outputs[1:]:
        tracer.give(out, [None] * out.dim(), like=[v, g], zero=False)
