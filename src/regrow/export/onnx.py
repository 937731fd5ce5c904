"""A model as ONNX, run in ONNX Runtime and compared with torch before the file takes its name."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.files import write_atomic
from regrow.core.names import unwrap
from regrow.export.exported import Exported, about_zeros, check_plain, check_target
from regrow.export.onnx_constants import fold_constants
from regrow.export.settle import settle
from regrow.model.inspection import inspect

OPSET = 18
_LIMIT = 2 * 10**9  # bytes of tensors; protobuf ends at 2^31, and the graph needs room too
# What the exporter tells on every success, of its own inside and of packages it can do without.
_WARNINGS = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (UserWarning, r"# The axis name: batch will not be used"),
)
_LOGGERS = (
    "torch.onnx._internal.exporter._registration",
    "torch.fx.experimental.symbolic_shapes",
)


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    inputs: Tensor | Sequence[Tensor],
    *,
    masks: Mapping[str, Tensor] | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Write an ONNX file of opset 18 whose batch axis is dynamic, once it agrees with torch.

    The file is made by PyTorch's exporter from a copy of the model on the CPU in evaluation mode
    (the model is left as it is); batch norms are folded into the convolutions before them. Before
    it takes its name it passes the checker of ONNX, and ONNX Runtime computes from it what torch
    computes, for all of `inputs` and for a batch of another size. All weights are inside: there
    is no second file.

    Args:
        model: may be compiled or data-parallel, and on any device.
        path: the file; a previous one stays intact unless the new one is whole and verified.
        inputs: real ones, on which the comparison is made: what `forward` takes, one tensor or
            several, all of them with the samples on axis 0.
        masks: bool keep masks by weight name, for the sparsity; a weight without one counts as
            kept where it is not zero.
        tolerance: how far an output may be from torch's, as a fraction of the largest absolute
            value of that output of torch's. Sums in another order, layer upon layer, come to some
            1e-7 to 1e-6 in single precision (ResNet-56, VGG16), and an operator of another meaning
            is wrong by 1e-2 and more. A model in half precision (1e-3) needs 1e-2.

    Raises:
        RegrowError: a package is missing; the target cannot be written; the model fails, or gives
            NaN or infinity, on the inputs; ONNX cannot express it or hold it in one file; ONNX
            Runtime cannot run it or gives other outputs.
    """
    packages = _Packages.found()
    inner = unwrap(model)
    tensors = dict(inner.named_parameters()) | dict(inner.named_buffers())
    check_plain(tensors)
    counts = inspect(inner, masks=masks)
    nonzeros = inspect(inner).kept
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size >= _LIMIT:
        raise RegrowError(
            f"{type(inner).__name__} holds {size:,} bytes, and one ONNX file less than "
            f"{_LIMIT:,}; export it in half precision, or as safetensors."
        )
    check_target(path, size)
    batch = _batch(inputs)
    with torch.no_grad():
        inner = _copy(inner)
        # Two samples at least to trace: the exporter takes an axis of length 1 for a fixed one.
        more = batch if len(batch[0]) > 1 else tuple(torch.cat((x, x)) for x in batch)
        cases = [_Case.of(inner, each) for each in (more, tuple(x[:1] for x in batch))]
        settle(inner, tuple(x[:2] for x in more))
        content = _converted(inner, tuple(x[:2] for x in more), packages)
    far = 0.0

    def check(written: Path) -> None:
        nonlocal far
        session = packages.session(written, path)
        far = max(case.compare(session, tolerance, path) for case in cases)

    written = write_atomic(path, content, check=check)
    return Exported(
        "onnx",
        written,
        4 * counts.parameters,
        nonzeros,
        counts.total,
        counts.sparsity,
        f"opset {OPSET}, batch axis dynamic; {about_zeros('ONNX', nonzeros, counts.total)}",
        far,
    )


@dataclass(frozen=True)
class _Packages:
    """The modules of the extra."""

    onnx: Any
    ir: Any
    passes: Any
    runtime: Any

    @classmethod
    def found(cls) -> _Packages:
        try:
            importlib.import_module("onnxscript")
            names = ("onnx", "onnx_ir", "onnx_ir.passes.common", "onnxruntime")
            return cls(*(importlib.import_module(name) for name in names))
        except ImportError as error:
            raise RegrowError(
                f"ONNX files need packages that are not installed ({error}); install them with: "
                'pip install "regrow[onnx]"'
            ) from error

    def session(self, written: Path, path: str | os.PathLike[str]) -> Any:
        """The file that will be `path` in ONNX Runtime, found sound by the checker of ONNX."""
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.onnx.checker.check_model(str(written), full_check=True)
            return self.runtime.InferenceSession(
                str(written), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # The package has no common class of errors.
            raise RegrowError(
                f"{os.fspath(path)} was not written: the exported file is unsound: {_told(error)}; "
                "choose another format."
            ) from error


@dataclass(frozen=True)
class _Case:
    """A batch of inputs, and what torch makes of it."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: nn.Module, inputs: tuple[Tensor, ...]) -> _Case:
        """Run the model.

        Raises:
            RegrowError: it fails, or gives something else than finite tensors.
        """
        where = f"{type(model).__name__} on a batch of {len(inputs[0])}"
        try:
            outputs = tuple(_flat(model(*inputs)))
        except Exception as error:  # of the user's own code
            raise RegrowError(f"{where} fails: {_told(error)}; give inputs that fit.") from error
        for number, output in enumerate(outputs):
            bad = int((~torch.isfinite(output)).sum())
            if bad:
                raise RegrowError(
                    f"{where} gives {bad} NaN or infinite values in output {number}; load a sound "
                    "checkpoint, or give inputs as in training."
                )
        return cls(inputs, outputs)

    def compare(self, session: Any, tolerance: float, path: str | os.PathLike[str]) -> float:
        """The largest absolute difference of ONNX Runtime's outputs from torch's.

        Raises:
            RegrowError: ONNX Runtime fails, or an output is further off than the tolerance.
        """
        where = f"{os.fspath(path)} was not written: on a batch of {len(self.inputs[0])}"
        names = [each.name for each in session.get_inputs()]
        try:
            arrays = [x.numpy() for x in self.inputs]
            found = session.run(None, dict(zip(names, arrays, strict=True)))
        except Exception as error:  # of ONNX Runtime, which has no common class of them
            raise RegrowError(f"{where} ONNX Runtime fails: {_told(error)}.") from error
        shapes = [tuple(x.shape) for x in self.outputs]
        if [x.shape for x in found] != shapes:
            raise RegrowError(
                f"{where} ONNX Runtime gives outputs of shapes {[x.shape for x in found]}, torch "
                f"of {shapes}; a model whose outputs do not follow the batch cannot be exported."
            )
        far = 0.0
        for number, (output, other) in enumerate(zip(self.outputs, found, strict=True)):
            expected = output.double().numpy()
            off = float(np.abs(expected - other.astype(np.float64)).max(initial=0.0))
            scale = float(np.abs(expected).max(initial=0.0)) or 1.0
            if not off <= tolerance * scale:  # A NaN is not.
                raise RegrowError(
                    f"{where} output {number} is up to {off:.3g} from torch's, whose largest value "
                    f"is {scale:.3g}, and the tolerance is {tolerance:g} of that; raise it for a "
                    "model in half precision, and otherwise use another format."
                )
            far = max(far, off)
        return far


def _batch(inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    sizes = {len(x) if isinstance(x, Tensor) and x.ndim else 0 for x in given}
    if len(sizes) != 1 or 0 in sizes:
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in given]
        raise RegrowError(
            f"the inputs are {shapes}; give tensors of the same number of samples, at least one, "
            "on axis 0."
        )
    return tuple(x.detach().cpu() for x in given)


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).cpu().train(False)
    except Exception as error:  # of any attribute of the user's class
        raise RegrowError(
            f"{type(model).__name__} cannot be copied: {_told(error)}; delete the attribute that "
            "stands in the way."
        ) from error


def _flat(outputs: Any) -> Iterator[Tensor]:
    """The tensors of an output, in the exporter's order."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (Mapping, list, tuple)):
        for each in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _flat(each)
    else:
        raise TypeError(f"an output is a {type(outputs).__name__}, and ONNX has tensors only")


def _converted(model: nn.Module, example: tuple[Tensor, ...], packages: _Packages) -> bytes:
    axis = torch.export.Dim("batch")
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=tuple({0: axis} for _ in example),
                verbose=False,
            )
            assert program is not None
            graph: Any = program.model.graph
            # Stack traces of whoever exports, with the names of their folders.
            packages.passes.ClearMetadataAndDocStringPass()(program.model)
            if fold_constants(packages.ir, program.model):
                packages.passes.RemoveUnusedNodesPass()(program.model)
            content: bytes = program.model_proto.SerializeToString(deterministic=True)
    except Exception as error:  # The exporter raises of every kind.
        raise RegrowError(
            f"{type(model).__name__} cannot be expressed in ONNX: {_told(error)}. Change what it "
            "names in the model's forward, or choose another format."
        ) from error
    fixed = [each.name for each in graph.inputs if isinstance(each.shape[0], int)]
    if fixed:  # The exporter falls back to that without a word.
        raise RegrowError(
            f"{type(model).__name__} treats batch sizes differently, so {', '.join(fixed)} would "
            "be of one size in ONNX; take that out of the model's forward."
        )
    return content


def _told(error: BaseException) -> str:
    """The first line of the cause behind all causes; what wraps it tells of the exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]]).rstrip(".")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter always says, and what it prints beside its errors."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stderr(printed):
            for category, message in _WARNINGS:
                warnings.filterwarnings("ignore", message, category)
            yield
        sys.stderr.write(printed.getvalue())
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
