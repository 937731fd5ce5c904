"""Tracing a model with torch.export, quietly, and leaving it as it was."""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from regrow.core.errors import RegrowError

# What torch.export says of its own inside, of attributes that `_untouched` puts back, and of a
# padding that the graph spells out.
_WARNINGS = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (UserWarning, r"The tensor attributes? .* assigned during export"),
    (UserWarning, r"Using padding='same' with even kernel lengths"),
)
_LOGGERS = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")


def trace(model: nn.Module, example: Tensor | tuple[Tensor, ...]) -> ExportedProgram:
    """A model in evaluation mode as functional operators, as coarse as PyTorch has them.

    Args:
        model: without a wrapper around it; on any device.
        example: float32 tensors with the batch as axis 0; see `capture`.

    Returns:
        The program; axis 0 of its inputs has one symbolic size.

    Raises:
        RegrowError: the example is no batch, or the model cannot be traced.
    """
    samples = _samples(example)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(_quiet())
            if all(one.is_cpu for one in itertools.chain(model.parameters(), model.buffers())):
                stack.enter_context(_untouched(model))
            else:
                model = copy.deepcopy(model).cpu()
            model.eval()
            batch, sizes = Dim("batch"), ShapesCollection()
            for sample in samples:
                sizes[sample] = {0: batch}
            shapes = sizes.dynamic_shapes(model, samples)
            program = torch.export.export(model, samples, dynamic_shapes=shapes, strict=False)
            return program.run_decompositions({})
    except Exception as error:
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
        reason = lines[0] if lines else type(error).__name__
        if reason.startswith("Constraints violated") and len(lines) > 1:
            reason = f"it works for some sizes of the batch only: {lines[1].split('. ')[0]}"
        raise RegrowError(
            f"{type(model).__name__} cannot be traced by torch.export: {reason.rstrip('.')}. Its "
            "forward must take the example, must not branch on values, and must read the size of "
            "the batch as x.size(0), if at all."
        ) from error


def _samples(example: Any) -> tuple[Tensor, ...]:
    """Two copies of the first sample of each input, on the CPU: tracing takes 1 for a constant."""
    given = example if isinstance(example, tuple) else (example,)
    if not given or not all(isinstance(one, Tensor) and one.dim() and one.numel() for one in given):
        raise RegrowError(
            "the example is not a batch: give the tensor that the model takes, or a tuple of "
            "tensors, with at least one sample along axis 0 and no empty axis."
        )
    for tensor in given:
        if tensor.dtype != torch.float32:
            raise RegrowError(
                f"the example holds {tensor.dtype}, and the runtime computes in float32: capture "
                "model.float() with a float32 example."
            )
    if len({len(tensor) for tensor in given}) != 1:
        raise RegrowError(
            f"the inputs of the example have {', '.join(str(len(one)) for one in given)} samples; "
            "axis 0 is the batch, so give them one number of samples."
        )
    # Each its own tensor: tracing takes one tensor in two places for one input.
    return tuple(torch.cat([one.detach()[:1].cpu()] * 2) for one in given)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings that every capture brings, and no logs of what an error tells."""

    def silent(record: logging.LogRecord) -> bool:
        return False

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    with warnings.catch_warnings():
        for category, message in _WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        for logger in loggers:
            logger.addFilter(silent)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(silent)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Give all modules their attributes back: modes, and what forward leaves behind in tracing."""
    held: list[Any] = [vars(module) for module in model.modules()]
    held += [box for one in held for box in one.values() if isinstance(box, (dict, list))]
    before = [(box, copy.copy(box)) for box in held]
    try:
        yield
    finally:
        for box, content in before:
            if isinstance(box, list):
                box[:] = content
            else:
                for key in box.keys() - content.keys():
                    del box[key]
                box.update(content)
