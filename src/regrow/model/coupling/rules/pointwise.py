"""Operations on each entry alone: broadcast dimensions of the operands are the same."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from regrow.model.coupling.indices import Dim
from regrow.model.coupling.rules.table import rule
from regrow.model.coupling.tracer import Call, Tracer, Value

# f(0) = 0, for one operand and for several that are all zero.
_KEEPS_ZERO = frozenset(
    f"aten.{name}"
    for names in (
        "add sub rsub maximum minimum fmax fmin lerp addcmul addcdiv where alias copy clone detach",
        "relu relu6 gelu silu elu celu selu leaky_relu hardswish mish prelu _prelu_kernel rrelu",
        "tanh sin asin sinh asinh atan atanh tan erf erfinv expm1 log1p sqrt pow square abs neg",
        "sign sgn trunc floor ceil round frac hardtanh clamp clamp_max clamp_min softshrink",
        "hardshrink tanhshrink threshold nan_to_num deg2rad positive _to_copy native_dropout i0e",
        "rrelu_with_noise",
    )
    for name in names.split()
)
# Zero as soon as one factor is.
_PRODUCTS = frozenset({"aten.mul"})
# Zero where the first operand is.
_QUOTIENTS = frozenset({"aten.div", "aten.true_divide", "aten.remainder", "aten.fmod"})


def broadcast(
    tracer: Tracer, values: Sequence[tuple[Value, Sequence[int]]], rank: int
) -> list[Dim]:
    """Equate the dimensions of operands of (value, shape), aligned at the end."""
    found: list[Dim] = [None] * rank
    taken = [False] * rank
    for value, shape in values:
        for i, (dim, size) in enumerate(zip(value.dims, shape, strict=True)):
            at = rank - len(shape) + i
            if size == 1:
                continue
            found[at] = tracer.indices.equate(found[at], dim) if taken[at] else dim
            taken[at] = True
    return found


@rule(
    "hardswish",
    "hardswish_",
    "hardsigmoid",
    "hardsigmoid_",
    "mish",
    "mish_",
    "softplus",
    "hardtanh",
)
@rule(
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "elu",
    "elu_",
    "celu",
    "selu",
    "prelu",
    "_prelu_kernel",
)
@rule("log_sigmoid", "log_sigmoid_forward", "softshrink", "hardshrink", "relu6", "rrelu_with_noise")
@rule("polar", "complex")
def pointwise(tracer: Tracer, call: Call) -> None:
    """Any operation that PyTorch itself calls pointwise, and these activations."""
    tensors = call.tensors
    values = [tracer.value(each) for each in tensors]
    shapes = [tuple(each.shape) for each in tensors]
    plain = call.name.removesuffix("_")
    number = call.arguments.get("other")
    shifted = type(number) in (int, float) and number != 0
    for out in call.outputs:
        if out.dim() < max(map(len, shapes), default=0):  # a buffer for the backward pass
            tracer.give(out, [None] * out.dim(), like=values, zero=False)
            continue
        dims = broadcast(tracer, list(zip(values, shapes, strict=True)), out.dim())
        # A broadcast operand is not removed where the others are.
        whole = [
            v.zero and tuple(s) == tuple(out.shape) for v, s in zip(values, shapes, strict=True)
        ]
        if plain in _PRODUCTS:
            zero = any(whole)
        elif plain in _QUOTIENTS:
            zero = whole[0]
        elif plain in ("aten.add", "aten.sub", "aten.rsub", "aten.where"):
            zero = all(whole) and not shifted
        else:
            zero = plain in _KEEPS_ZERO and all(whole) and _at_zero(plain, call)
        tracer.give(out, dims, like=values, zero=zero)


@rule(
    "clone", "detach", "alias", "_to_copy", "contiguous", "lift_fresh", "lift_fresh_copy", "detach_"
)
@rule("resolve_conj", "resolve_neg", "_conj", "_neg_view", "view_as", "expand_as", "type_as")
def same(tracer: Tracer, call: Call) -> None:
    """The same tensor."""
    value = tracer.value(call["self"])
    tracer.give(call.outputs[0], value.dims, like=[value], zero=value.zero)


@rule("copy_", "copy")
def copy(tracer: Tracer, call: Call) -> None:
    """A tensor written into another, perhaps a part of a third."""
    into, source = call["self"], call["src"]
    values = [tracer.value(into), tracer.value(source)]
    dims = broadcast(
        tracer,
        [(values[0], tuple(into.shape)), (values[1], tuple(source.shape))],
        into.dim(),
    )
    tracer.give(call.outputs[0], dims, like=values, zero=False)


def _at_zero(name: str, call: Call) -> bool:
    """Whether an operation with numbers among its arguments gives zero for zero."""
    given = call.arguments
    if name == "aten.pow":
        exponent = given.get("exponent")
        positive = isinstance(exponent, (int, float)) and exponent > 0
        return isinstance(given["self"], Tensor) and positive
    if name == "aten.threshold":
        return bool(given["threshold"] < 0 or given["value"] == 0)
    low = given.get("min", given.get("min_val"))
    high = given.get("max", given.get("max_val"))
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return False
    return (low is None or low <= 0) and (high is None or high >= 0)


@rule("masked_fill", "masked_fill_")
def masked_fill(tracer: Tracer, call: Call) -> None:
    """A number where a mask says so, which need not be where indices are removed."""
    pairs = [(tracer.value(each), tuple(each.shape)) for each in (call["self"], call["mask"])]
    dims = broadcast(tracer, pairs, call.outputs[0].dim())
    tracer.give(call.outputs[0], dims, like=[value for value, _ in pairs], zero=False)


@rule("native_dropout", "bernoulli_", "feature_dropout", "_fused_dropout")
def dropout(tracer: Tracer, call: Call) -> None:
    """Entries stay where they are."""
    first = next(each for each in call.arguments.values() if isinstance(each, Tensor))
    value = tracer.value(first)
    for out in call.outputs:
        tracer.give(out, value.dims, like=[value], zero=value.zero)


@rule("zeros", "ones", "empty", "full", "empty_strided", "rand", "randn", "new_zeros", "new_ones")
@rule("new_empty", "new_full", "new_empty_strided", "empty_like", "zeros_like", "ones_like")
@rule("full_like", "rand_like", "randn_like", "scalar_tensor", "fill_", "zero_")
def create(tracer: Tracer, call: Call) -> None:
    """One number everywhere, or noise: of any size that what it meets has."""
    out = call.outputs[0]
    given = call.arguments.get("self")
    if isinstance(given, Tensor) and tuple(given.shape) == tuple(out.shape):
        value = tracer.value(given)
        tracer.give(out, value.dims, like=[], zero=call.name in ("aten.zeros_like", "aten.zero_"))
        return
    dims = [tracer.indices.fresh(size) if 1 < size < 65536 else None for size in out.shape]
    tracer.site(tuple(out.shape), dims)
    tracer.give(out, dims, like=[], zero=call.name in ("aten.zeros", "aten.new_zeros"))
