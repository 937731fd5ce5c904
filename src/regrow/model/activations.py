"""Mean activations through the user's own loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from regrow.model.collect import LossFn, evaluation


def mean_outputs(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    loss_fn: LossFn,
    batches: Iterable[Any],
) -> dict[str, Tensor]:
    """Mean |output| of each output channel of the layers that hold weights, in float32.

    Args:
        model: put into evaluation mode for the duration.
        weights: by clean name; those of convolutions and linear layers count.
        loss_fn: the user's `loss_fn(model, batch)`; only its forward pass matters.
        batches: at least one.

    Returns:
        by the weight's name: (channels,).
    """
    totals: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> Any:
        channel = -1 if isinstance(module, nn.Linear) else 1

        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            size = output.detach().float().abs().movedim(channel, 0).flatten(1)
            totals[name] = totals.get(name, torch.zeros(len(size), device=size.device)) + size.sum(
                1
            )
            counts[name] = counts.get(name, 0) + size.shape[1]

        return module.register_forward_hook(hook)

    with ExitStack() as stack, evaluation(model), torch.no_grad():
        for name, module in _layers(model):
            if name in weights:
                stack.callback(watch(name, module).remove)
        for batch in batches:
            loss_fn(model, batch)
    return {name: total / counts[name] for name, total in totals.items()}


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            yield f"{path}.weight" if path else "weight", module
