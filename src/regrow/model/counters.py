"""Multiply-adds: how often each weight entry is used in one forward pass of one sample."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.names import unwrap
from regrow.model.collect import evaluation, streams

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED, nn.Linear)
# Attention multiplies its weights by functions: which of its inputs each of them meets.
_ATTENTION = {
    "in_proj_weight": ("query", "key", "value"),
    "q_proj_weight": ("query",),
    "k_proj_weight": ("key",),
    "v_proj_weight": ("value",),
    "out_proj.weight": ("query",),
}


def positions(model: nn.Module, example: Any) -> dict[str, int]:
    """Uses of each weight entry in one forward pass of one sample, for every layer that has them.

    A weight entry is used once per output position of a convolution, once per input position of
    a transposed convolution, and once per row that a linear layer multiplies. So the
    multiply-adds of a layer are (kept weights) * positions, for any stride, dilation, grouping
    and mask. Positions that fall on padding are counted, as is usual in the literature; products
    of two activations, as in attention, belong to no weight and are not.

    Args:
        model: any module; DistributedDataParallel and torch.compile wrappers are looked through.
        example: what the model takes, with the batch dimension first: one tensor, a tuple or
            list of positional arguments, or a mapping of keyword arguments. The pass runs on the
            first sample alone: every tensor as long as the first one is cut to length 1, and
            anything else is passed as it is.

    Returns:
        Uses by clean weight name ("layer.weight"), in the order of the modules, for Conv1d/2d/3d,
        ConvTranspose1d/2d/3d, Linear and nn.MultiheadAttention. A layer that runs several times
        adds up; one that never runs has 0. One Parameter in several layers stands once, under its
        first name.

    Raises:
        RegrowError: the example holds no batch, or the model does not run on it.

    Departures: a weight that the model itself applies by a function, without calling its layer,
    is not seen and has 0. The packed in_proj_weight of an attention between sequences of
    different lengths gets the rounded mean over its three thirds.
    """
    model = unwrap(model)
    names = _weight_names(model)
    uses = dict.fromkeys([name for held in names.values() for name in held.values()], 0)

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        for field, name in names[module].items():
            if field == "weight":
                uses[name] += _layer_uses(module, args[0] if args else kwargs["input"], out)
            else:
                given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
                rows = [math.prod(given[key].shape[:-1]) for key in _ATTENTION[field]]
                uses[name] += round(sum(rows) / len(rows))

    args, kwargs = _one_sample(example)
    with observed(model, dict.fromkeys(names, count)):
        try:
            model(*args, **kwargs)
        except Exception as error:
            raise RegrowError(
                f"{type(model).__name__} does not run on one sample of the example "
                f"({_describe(args, kwargs)}): {error}. Give an example that the model takes: a "
                "tensor, a tuple of arguments or a dict of keywords, batch dimension first, on "
                "the model's device."
            ) from error
    return uses


@contextmanager
def observed(model: nn.Module, hooks: Mapping[nn.Module, Hook]) -> Iterator[None]:
    """Evaluation mode, no gradients and the given forward hooks, all undone on the way out.

    Random streams are given back as they were.

    Args:
        model: the unwrapped model; batch-norm statistics are not touched.
        hooks: for some of its modules, a function of (module, args, kwargs, output).
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluation(model))
        stack.enter_context(streams())
        if "torch._dynamo" in sys.modules:
            # Modules compiled in place, or inside the model, may have been traced without hooks.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for module, hook in hooks.items():
            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _weight_names(model: nn.Module) -> dict[nn.Module, dict[str, str]]:
    """Per counted module its weight fields and their names; tied weights share the first name."""
    first: dict[int, str] = {}
    names: dict[nn.Module, dict[str, str]] = {}
    for path, module in model.named_modules():
        if isinstance(module, _LAYERS):
            fields = ["weight"]
        elif isinstance(module, nn.MultiheadAttention):
            fields = [f for f in _ATTENTION if _stored(module, f) is not None]
        else:
            continue
        names[module] = {
            field: first.setdefault(id(_stored(module, field)), f"{path}.{field}".lstrip("."))
            for field in fields
        }
    return names


def _stored(module: nn.Module, field: str) -> object:
    """The Parameter behind a weight; a parametrised one is computed anew at each access."""
    path, _, name = field.rpartition(".")
    owner = module.get_submodule(path)
    held = getattr(owner, "parametrizations", {})
    if name in held:
        return getattr(held[name], "original", held[name])
    return owner._parameters.get(name, owner)


def _layer_uses(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Uses of each weight entry in one call of a layer, with or without a batch dimension."""
    if isinstance(module, nn.Linear):
        return math.prod(inputs.shape[:-1])
    maps = inputs if isinstance(module, _TRANSPOSED) else output
    spatial = len(module.kernel_size)  # type: ignore[arg-type]
    return math.prod(maps.shape[-spatial:]) * math.prod(maps.shape[: -spatial - 1])


def _one_sample(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for a forward pass of the example's first sample."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example, Mapping):
        kwargs = dict(example)
    else:
        args = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    lengths = [len(v) for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.ndim]
    if not lengths or lengths[0] == 0:
        raise RegrowError(
            f"the example ({_describe(args, kwargs)}) holds no batch to take one sample from: "
            "give a tensor, a tuple of arguments or a dict of keywords, batch dimension first."
        )

    def cut(value: Any) -> Any:
        batched = isinstance(value, Tensor) and value.ndim > 0 and len(value) == lengths[0]
        return value[:1] if batched else value

    return tuple(cut(v) for v in args), {key: cut(v) for key, v in kwargs.items()}


def _describe(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Shapes of tensors and types of everything else, for messages."""

    def one(value: Any) -> str:
        if isinstance(value, Tensor):
            return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        return type(value).__name__

    return ", ".join([*map(one, args), *(f"{key}={one(v)}" for key, v in kwargs.items())])
