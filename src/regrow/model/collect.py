"""Evidence through the user's own loss: gradients of the network as it stands, dense or masked."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from regrow.core.errors import RegrowError
from regrow.core.evidence import Statistics

LossFn = Callable[[nn.Module, Any], Tensor]


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time being, each module's own mode restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms that train normalise by the batch for the time being, in evaluation mode too.

    Their running statistics are put aside, so they do not move. Norms whose scale is frozen keep
    using theirs, as they do in training.
    """
    aside = [
        (module, module.running_mean, module.running_var)
        for module in model.modules()
        if isinstance(module, _BatchNorm) and not _frozen(module)
    ]
    try:
        for module, _, _ in aside:
            module.running_mean = module.running_var = None
        yield
    finally:
        for module, mean, variance in aside:
            module.running_mean, module.running_var = mean, variance


def _frozen(norm: _BatchNorm) -> bool:
    return norm.weight is not None and not norm.weight.requires_grad


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """The random streams of PyTorch, NumPy and `random`, given back as they were."""
    plain, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(legacy)


def take(data: Iterable[Any], batches: int | None) -> Generator[Any, None, None]:
    """The first batches of the user's data (None: all), random streams left as they were.

    Those of PyTorch, NumPy and `random`, and the generators of a loader and its samplers, so that
    collecting does not change what training sees next. An epoch of the same loader that is under
    way goes on, persistent workers or not.

    Raises:
        RegrowError: there is not a single batch.
    """
    seen = 0
    drawn = [(generator, generator.get_state()) for generator in _generators(data)]
    if isinstance(data, DataLoader) and data.persistent_workers:
        # Its one iterator is the one that training reads from; a copy has another.
        data = fresh = copy.copy(data)
        fresh._iterator = None
    try:
        with streams():
            for batch in islice(iter(data), batches):
                seen += 1
                yield batch
    finally:
        for generator, state in drawn:
            generator.set_state(state)
    if not seen:
        raise RegrowError("`data` gave no batch, so no evidence can be collected; pass a loader.")


def _generators(data: Iterable[Any]) -> list[torch.Generator]:
    """A loader's own generator, and those of its samplers."""
    holders = [data, *(getattr(data, name, None) for name in ("sampler", "batch_sampler"))]
    holders.append(getattr(holders[-1], "sampler", None))
    found = (getattr(holder, "generator", None) for holder in holders)
    return list({id(each): each for each in found if isinstance(each, torch.Generator)}.values())


def gradients(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    square: bool,
    statistics: Statistics = "running",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean over batches of dL/dw and, if asked for, of its square, in float32.

    Evaluation mode, so no dropout; the parameters' own `.grad` is left alone. Gradients are
    dense: entries that a mask holds at zero have theirs too.

    Args:
        model: any network; put into evaluation mode for the duration.
        weights: its parameters by clean name.
        loss_fn: the user's `loss_fn(model, batch)`, a scalar.
        batches: at least one.
        square: also accumulate the mean of (dL/dw)^2, elementwise (squares of batch means).
        statistics: by which batch norms normalise. "running" is evaluation's way. In a network in
            training these lag behind the weights, and come from augmented data, so that its
            gradient under them points mostly at the mismatch; "batch" is training's way.

    Raises:
        RegrowError: the loss is no finite scalar, or does not depend on the weights.
    """
    mean = {n: torch.zeros_like(w, dtype=torch.float32) for n, w in weights.items()}
    squares = {n: torch.zeros_like(total) for n, total in mean.items()} if square else {}
    count = 0
    with contextlib.closing(
        each_gradient(model, weights, loss_fn, batches, statistics=statistics)
    ) as found:
        for grads in found:
            for name, grad in grads.items():
                if grad is not None:
                    mean[name] += grad
                    if square:
                        squares[name].addcmul_(grad.float(), grad.float())
            count += 1
    for tensor in (*mean.values(), *squares.values()):
        tensor /= max(count, 1)
    return mean, squares


def each_gradient(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    statistics: Statistics,
) -> Generator[dict[str, Tensor | None], None, None]:
    """dL/dw of one batch after the other, by clean name; None of a weight that was not used.

    Close it, or read it to its end, before the model is used again. Arguments and errors are
    those of `gradients`.
    """
    names = list(weights)
    with _differentiable(model, weights, statistics):
        for batch in batches:
            yield dict(zip(names, _gradient(model, weights, loss_fn, batch), strict=True))


def hessian_products(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    loss_fn: LossFn,
    batches: Iterable[Any],
    vector: Mapping[str, Tensor],
    *,
    statistics: Statistics = "running",
) -> dict[str, Tensor]:
    """Hv in float32: the Hessian of the mean loss over all the weights together, times a vector.

    By double backward, one batch at a time: Hv is the gradient of g . v. What differentiates once
    only, such as a fused kernel of one's own, cannot be used in the loss; attention is computed by
    its plain formula meanwhile.

    Args:
        model, weights, loss_fn, statistics: see `gradients`.
        batches: at least one; the same as the vector's, if that is the gradient.
        vector: v, of the weights' shapes by name.

    Raises:
        RegrowError: as `gradients` does.
    """
    names = list(weights)
    mean = {name: torch.zeros_like(weights[name], dtype=torch.float32) for name in names}
    count = 0
    with (
        _differentiable(model, weights, statistics),
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
    ):
        for batch in batches:
            grads = _gradient(model, weights, loss_fn, batch, create_graph=True)
            pairs = [(g, n) for g, n in zip(grads, names, strict=True) if g is not None]
            along = torch.stack([(g.float() * vector[n]).sum() for g, n in pairs]).sum()
            count += 1
            if not along.requires_grad:  # The loss is linear in the weights.
                continue
            found = torch.autograd.grad(along, [weights[n] for n in names], allow_unused=True)
            for name, product in zip(names, found, strict=True):
                if product is not None:
                    mean[name] += product
    for tensor in mean.values():
        tensor /= max(count, 1)
    return mean


@contextlib.contextmanager
def _differentiable(
    model: nn.Module, weights: Mapping[str, nn.Parameter], statistics: Statistics
) -> Iterator[None]:
    """The network as gradients are read of it, for the time being."""
    frozen = [p for p in weights.values() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        normalised = batch_statistics(model) if statistics == "batch" else contextlib.nullcontext()
        with evaluation(model), normalised:
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _gradient(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    loss_fn: LossFn,
    batch: Any,
    *,
    create_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    # Here alone: a generator between two batches must not leave its reader differentiating.
    with torch.enable_grad():
        loss = loss_fn(model, batch)
        _check_loss(loss)
        grads = torch.autograd.grad(
            loss, list(weights.values()), allow_unused=True, create_graph=create_graph
        )
    if all(grad is None for grad in grads):
        raise RegrowError(
            "the loss does not depend on the weights of the model that loss_fn is given; use its "
            "first argument, not a model from outside."
        )
    return grads


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise RegrowError(
            f"loss_fn(model, batch) must return a scalar that depends on the weights; got {what}."
        )
    if not torch.isfinite(loss.detach()):
        raise RegrowError(
            f"loss_fn(model, batch) returned {loss.item()} while collecting evidence; the network "
            "or the batch is not sound."
        )
