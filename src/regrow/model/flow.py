"""Synaptic flow: how much each weight carries of what passes through the network, without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from regrow.core.errors import RegrowError
from regrow.model.collect import evaluation, streams


def flow(model: nn.Module, weights: Mapping[str, nn.Parameter], example: Any) -> dict[str, Tensor]:
    """dR/d|w| in float64, where R = 1' f(1; |w|): the sum of the outputs for an input of ones.

    All parameters are replaced by their absolute values. Evaluation mode; batch norms normalise
    by their running variance and a mean of zero, which they have before any training. The
    network itself is not written to: it runs on copies.

    Args:
        model: any network; in a chain without biases, norms of the data or saturation the scores
            |w| dR/d|w| of each layer sum to R.
        weights: its parameters by clean name.
        example: a batch of inputs, a tensor or a tuple of arguments, of which floating ones are
            replaced by ones and others, such as token numbers, taken as they are.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving
    synaptic flow", eq. 2 and algorithm 1.

    Departures: float64 (float32 on MPS, which has no other), since products of many layers
    overflow. Running means count as zero.

    Raises:
        RegrowError: the network does not run on such an input, or R or its gradient is not finite.
    """
    device = next(iter(weights.values())).device
    kind = torch.float32 if device.type == "mps" else torch.float64
    # Tied names must be given one and the same tensor.
    copies = {
        id(p): (p.detach().abs().to(kind) if p.is_floating_point() else p.detach())
        for p in model.parameters()
    }
    own = [copies[id(p)].requires_grad_() for p in weights.values()]
    replaced = {n: copies[id(p)] for n, p in model.named_parameters(remove_duplicate=False)}
    with evaluation(model), torch.enable_grad(), streams():
        try:
            outputs = functional_call(
                model, {**replaced, **_buffers(model, kind)}, _ones(example, device, kind)
            )
            total = torch.stack([found.double().sum() for found in _floating(outputs)]).sum()
            grads = torch.autograd.grad(total, own, allow_unused=True)
        except (RuntimeError, TypeError, ValueError) as error:
            raise RegrowError(
                f"synaptic flow runs {type(model).__name__} in {kind} on ones of the example's "
                f"shape, which fails: {error}. Pass an example that the network takes, and keep "
                "numbers of a fixed type out of its forward pass; or take another criterion."
            ) from error
    found = {
        name: torch.zeros_like(copy) if grad is None else grad
        for name, copy, grad in zip(weights, own, grads, strict=True)
    }
    for name, grad in found.items():
        if not bool(torch.isfinite(grad).all()):
            raise RegrowError(
                f"the synaptic flow through {name} of shape {tuple(grad.shape)} is not finite in "
                f"{kind}: the network is too deep for it, or masks its values by infinity; take "
                "another criterion."
            )
    return {name: grad.detach() for name, grad in found.items()}


def _buffers(model: nn.Module, kind: torch.dtype) -> dict[str, Tensor]:
    found = {
        name: buffer.to(kind, copy=True) if buffer.is_floating_point() else buffer.clone()
        for name, buffer in model.named_buffers()
    }
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            found[f"{path}.running_mean".lstrip(".")].zero_()
    return found


def _ones(example: Any, device: torch.device, kind: torch.dtype) -> tuple[Any, ...]:
    def one(given: Any) -> Any:
        if not isinstance(given, Tensor):
            return given
        if given.is_floating_point():
            return torch.ones(given.shape, dtype=kind, device=device)
        return given.to(device)

    return tuple(map(one, example if isinstance(example, tuple) else (example,)))


def _floating(outputs: Any) -> Iterator[Tensor]:
    """All floating tensors of what a network returns."""
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, Mapping):
        for each in outputs.values():
            yield from _floating(each)
    elif isinstance(outputs, (list, tuple)):
        for each in outputs:
            yield from _floating(each)
