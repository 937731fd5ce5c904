"""Batch-norm statistics of a network that was cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regrow.core.errors import RegrowError
from regrow.core.names import unwrap
from regrow.model.collect import LossFn, evaluation, take


def recalibrate(
    model: nn.Module, loss_fn: LossFn, data: Iterable[Any], *, batches: int | None = 64
) -> None:
    """Measure the running means and variances of all batch norms anew, in place.

    A cut changes what reaches the norms behind it, so that their statistics are of another
    network. They become the plain average over the batches; weights stay, dropout is off.

    Args:
        model: its batch norms must keep running statistics.
        loss_fn: the user's `loss_fn(model, batch)`; only its forward pass matters.
        data: an iterable of batches; random streams are left as they were.
        batches: how many of them; None takes all.

    Raises:
        RegrowError: there are no batch norms with statistics, or no batch; they are as before
            then, as after any error of the loss.

    Source: Li et al. 2020 (EagleEye), section 3.2.
    """
    norms = [
        module
        for module in unwrap(model).modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        raise RegrowError(
            f"{type(unwrap(model)).__name__} has no batch norm with running statistics, so there "
            "is nothing to measure; leave this step out."
        )
    with evaluation(model), torch.no_grad():
        momenta = [norm.momentum for norm in norms]
        before = [(b, b.clone()) for norm in norms for b in norm.buffers(recurse=False)]
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative average
                norm.train()
            for batch in take(data, batches):
                loss_fn(model, batch)
        except BaseException:
            for buffer, values in before:
                buffer.copy_(values)
            raise
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
