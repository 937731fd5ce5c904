"""A packed network as ONNX in int8, by ONNX Runtime's static quantisation.

The file is in the QDQ format: float operations between pairs of QuantizeLinear and DequantizeLinear
nodes, which an engine replaces by its int8 kernels. Weights are int8 with a scale for each output
channel, activations uint8 with one for each tensor, as x86 multiplies them. Where the pairs stand
depends on what the engine fuses (`Engine.fuses`): each gets what it is fastest with. A tensor's
range is its least and its largest value over `SAMPLES` of the timing's own random inputs: enough
for the speed and a sane output, whereas a network that shall classify well takes real data.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from regrow.bench.timing.folded import folded
from regrow.bench.timing.onnx_graph import onnx_model
from regrow.bench.timing.source import Floats, Source

SAMPLES = 16
_LAYERS = ["Conv", "Gemm", "MatMul"]
_KERNELS = [  # ONNX Runtime's, for what lies between layers
    *("Add", "Mul", "Concat", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Softmax"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Transpose", "Slice", "Pad"),
]
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # Norms are folded: no advice to do so.


class NotQuantised(Exception):
    """A network that cannot be quantised, with the reason."""


def quantise(source: Source, path: Path, fuses: bool, seed: int = 0) -> None:
    """Write a network as a quantised ONNX file.

    Args:
        source: the network.
        path: of the file; what is quantised stands beside it as `.fp32.onnx`.
        fuses: True rounds what layers read and nothing else; the engine takes all that stands
            between two layers, and the rounding, into the first. False rounds the inputs and the
            outputs of all operations with int8 kernels, or of layers alone where some are linear
            layers over sequences: what stands between those is faster in fp32.
        seed: of the random inputs.

    Raises:
        NotQuantised: ONNX Runtime cannot do it.
    """
    try:
        onnx = importlib.import_module("onnx")
        tool: Any = importlib.import_module("onnxruntime.quantization")
        model = onnx_model(folded(source))
        onnx.helper.set_model_props(model, _PREPARED)
        dense = path.with_suffix(".fp32.onnx")
        onnx.save(model, str(dense))
        sequences = any(node.op_type == "MatMul" for node in model.graph.node)
        tool.quantize_static(
            str(dense),
            str(path),
            _Inputs([name for name, _, _ in source.graph.inputs], source.inputs(SAMPLES, seed)),
            quant_format=tool.QuantFormat.QDQ,
            op_types_to_quantize=_LAYERS if fuses or sequences else _LAYERS + _KERNELS,
            per_channel=True,  # as fast as one scale, and nearer
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": _LAYERS if fuses else []},
        )
    except Exception as error:  # of either package
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise NotQuantised(f"onnxruntime could not quantise the network: {words}") from error


class _Inputs:
    """Gives one batch, as quantize_static asks for it."""

    def __init__(self, names: list[str], arrays: list[Floats]) -> None:
        self._batches = iter([dict(zip(names, arrays, strict=True))])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._batches, None)
