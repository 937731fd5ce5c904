"""Dense int8: the quantised files, who runs them in int8 kernels, and why some do not."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from regrow.bench import environment
from regrow.bench.timing import Settings, time_network
from regrow.bench.timing import engines as engines_module
from regrow.bench.timing.engines import ENGINES, Job
from regrow.bench.timing.process import Worker
from regrow.bench.timing.quantised import NotQuantised, quantise
from regrow.bench.timing.rounds import FAR_ROUNDED, compared, reference
from regrow.bench.timing.source import Source, read_source

pytest.importorskip("regrow_runtime", reason="the runtime is not installed")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

INT8 = [name for name, engine in ENGINES.items() if "int8" in engine.dtypes]


class Residual(nn.Module):
    """Three convolutions with norms, of which a sum and a pooling join two, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.third = nn.Conv2d(8, 8, 3)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = torch.relu(x + self.second(x))
        x = torch.relu(self.third(nn.functional.max_pool2d(x, 2)))
        return self.last(x.mean((2, 3)))


class Mixer(nn.Module):
    """Linear layers over a sequence, with what lies between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.last(nn.functional.gelu(self.first(x))))


def packed(model: nn.Module, folder: Path, *shape: int) -> Path:
    from regrow.export.deploy import pack

    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # one that does something
            module.running_mean = torch.randn(module.num_features)
            module.running_var = torch.rand(module.num_features) + 0.5
    pack(model, folder / "m.regrow", torch.randn(2, *shape))
    return folder / "m.regrow"


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return packed(Residual(), tmp_path, 3, 12, 12)


def quantised(source: Source, folder: Path, engine: str) -> str:
    path = folder / f"{engine}.onnx"
    quantise(source, path, ENGINES[engine].fuses)
    return str(path)


def neighbours(path: str) -> dict[str, set[str]]:
    """Of every kind of operation, the kinds that it reads."""
    graph = onnx.load(path).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    found: dict[str, set[str]] = {}
    for node in graph.node:
        found.setdefault(node.op_type, set()).update(
            makers[name] for name in node.input if name in makers
        )
    return found


# The files.


@pytest.mark.parametrize("engine", INT8)
def test_outputs_are_rounded_and_sane(engine: str, residual: Path, tmp_path: Path) -> None:
    source = read_source(residual)
    job = Job(engine, "int8", 1, str(residual), quantised(source, tmp_path, engine))
    pytest.importorskip(ENGINES[engine].module)
    loaded = ENGINES[engine].load(job)
    for batch in (1, 5):
        inputs = source.inputs(batch)
        found = loaded.prepare(batch)(inputs)
        assert all(each.dtype == np.float32 for each in found)
        told = compared(found, reference(source, inputs), "int8")
        assert "error" not in told
        assert 1e-4 < told["relative_diff"] < 0.05


def test_where_the_pairs_stand(residual: Path, tmp_path: Path) -> None:
    """Around all operations, or before layers only; norms are in the layers either way."""
    source = read_source(residual)
    around = neighbours(quantised(source, tmp_path, "onnxruntime"))
    before = neighbours(quantised(source, tmp_path, "openvino"))
    for found in (around, before):
        assert found["Conv"] == found["Gemm"] == {"DequantizeLinear"}
        assert "BatchNormalization" not in found
    assert around["Add"] == around["MaxPool"] == {"DequantizeLinear"}
    assert "Conv" in around["QuantizeLinear"]
    assert "Conv" in before["Add"]
    assert before["MaxPool"] == {"Relu"}
    assert "Conv" not in before["QuantizeLinear"]


def test_between_linear_layers_over_sequences_all_is_fp32(tmp_path: Path) -> None:
    source = read_source(packed(Mixer(), tmp_path, 6, 8))
    for engine in INT8:
        found = neighbours(quantised(source, tmp_path, engine))
        assert found["MatMul"] == {"DequantizeLinear"}
        assert "DequantizeLinear" not in found["Erf"]
        assert "DequantizeLinear" not in found["LayerNormalization"]


def test_weights_have_a_scale_for_each_channel(residual: Path, tmp_path: Path) -> None:
    for engine in INT8:
        model = onnx.load(quantised(read_source(residual), tmp_path, engine))
        stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        scales = {
            stored[node.input[0]].shape: stored[node.input[1]].size
            for node in model.graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] in stored
            if stored[node.input[0]].dtype == np.int8
        }
        assert scales == {(8, 3, 3, 3): 8, (8, 8, 3, 3): 8, (5, 8): 5}


# The kernels.


def test_onnxruntime_computes_in_int8(residual: Path, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    path = quantised(read_source(residual), tmp_path, "onnxruntime")
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["QLinearConv"] == 3
    assert kinds["QGemm"] == kinds["QLinearAdd"] == 1
    assert kinds["Conv"] + kinds["FusedConv"] + kinds["Gemm"] + kinds["Add"] == 0


def test_openvino_computes_in_int8(residual: Path, tmp_path: Path) -> None:
    vino = pytest.importorskip("openvino")
    path = quantised(read_source(residual), tmp_path, "openvino")
    core = vino.Core()
    model = core.read_model(path)
    model.reshape([1, 3, 12, 12])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    found = Counter(
        (each["layerType"].astype(str), each["runtimePrecision"].astype(str)) for each in told
    )
    assert found["Convolution", "u8"] + found["Convolution", "i8"] == 3
    assert found["FullyConnected", "u8"] + found["FullyConnected", "i8"] == 1


# Rows and reasons.


def test_rows_of_int8_stand_beside_fp32(residual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines_module, "native_int8", lambda: True)
    timing = time_network(residual, Settings((2,), (1,), ("onnxruntime",), seconds=0.02))
    assert [(row["engine"], row["dtype"]) for row in timing.rows] == [
        ("regrow", "fp32"),
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8"),
    ]
    *exact, rounded = timing.rows
    assert not timing.skipped
    assert all("error" not in row for row in timing.rows)
    assert max(row["relative_diff"] for row in exact) < 1e-5 < rounded["relative_diff"]


def test_what_cannot_be_quantised_is_left_out(
    residual: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> None:
        raise NotQuantised("no such operation")

    monkeypatch.setattr(engines_module, "native_int8", lambda: True)
    monkeypatch.setattr("regrow.bench.timing.measure.quantise", fails)
    started = []

    class Idle(Worker):
        def __init__(self, job: Job) -> None:
            started.append((job.engine, job.dtype))
            super().__init__(job, ("true",))

    timing = time_network(
        residual, Settings((1,), (1,), ("onnxruntime",)), lambda words: None, Idle
    )
    assert started == [("regrow", "fp32"), ("onnxruntime", "fp32")]
    reasons = {(each["engine"], each["dtype"]): each["reason"] for each in timing.skipped}
    assert reasons["onnxruntime", "int8"] == "no such operation"


def test_a_failure_of_the_package_is_a_reason(
    residual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime import quantization

    def fails(*given: Any, **named: Any) -> None:
        raise ValueError("out\nof luck")

    monkeypatch.setattr(quantization, "quantize_static", fails)
    with pytest.raises(NotQuantised, match="quantise the network: ValueError: out of luck"):
        quantise(read_source(residual), tmp_path / "q.onnx", True)


def test_reasons_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ENGINES["openvino"]
    monkeypatch.setattr(engines_module, "native_int8", lambda: False)
    assert "no int8 units" in str(engine.lacks("int8"))
    monkeypatch.setattr(engines_module, "native_int8", lambda: True)
    assert engine.lacks("int8") is None
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    assert "pip install onnxruntime); it quantises" in str(engine.lacks("int8"))
    assert engine.lacks("fp32") is None


@pytest.mark.parametrize(
    ("vnni", "amx", "flags", "native"),
    [
        (True, False, "", True),
        (False, True, "", True),
        (False, False, "fma avx2 avx_vnni", True),
        (False, False, "fma avx2", False),
        (False, False, "", False),
    ],
)
def test_units_for_int8(
    vnni: bool, amx: bool, flags: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(environment, "_cpuinfo", lambda key: flags if key == "flags" else "")
    assert environment.native_int8() is native


def test_int8_that_computes_something_else_is_wrong() -> None:
    random = np.random.default_rng(0)
    right = [random.standard_normal((16, 10)).astype(np.float32)]
    largest = np.abs(right[0]).max()
    for dtype in ("int8", "bf16"):
        near = compared([right[0] + 0.9 * FAR_ROUNDED * largest], right, dtype)
        assert near["relative_diff"] == pytest.approx(0.9 * FAR_ROUNDED)
        assert "error" not in near
        for wrong in (
            np.zeros_like(right[0]),
            right[0][::-1],
            random.standard_normal((16, 10)),
            right[0] + 1.1 * FAR_ROUNDED * largest,
            right[0] * np.nan,
        ):
            assert "error" in compared([wrong], right, dtype)
