"""The engines: how each loads the network and runs a batch. A new one is one row of the table.

An engine's loader gives a function from a batch size to a function from NumPy inputs to NumPy
outputs, so that all are timed over the same ground; what depends on the batch is prepared before.
Every engine gets float32 arrays and gives them back, whatever it computes in. In int8 an engine
runs another file, which `quantised.py` makes: what it computes is rounded, and sane, but nobody
has looked after its accuracy, which takes real data.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from regrow.bench.environment import native_bf16, native_int8

Run = Callable[[list[Any]], list[Any]]
Prepare = Callable[[int], Run]


@dataclass(frozen=True)
class Job:
    """What a worker measures.

    Attributes:
        engine, dtype: a row of the table, and one of its dtypes.
        threads: that the engine may use.
        packed: path of the deploy file.
        onnx: path of the same network as ONNX, quantised for int8; "" where no engine asks for it.
    """

    engine: str
    dtype: str
    threads: int
    packed: str
    onnx: str


@dataclass(frozen=True)
class Loaded:
    """An engine that holds the network.

    Attributes:
        prepare: see above.
        isa: the instruction set in use, where the engine tells.
        profile: from a batch size to plain data on each layer, where the engine can.
    """

    prepare: Prepare
    isa: str | None = None
    profile: Callable[[int], list[dict[str, Any]]] | None = None


@dataclass(frozen=True)
class Engine:
    """A row of the table.

    Attributes:
        load: from a job to an engine that holds the network.
        module, package: to import, and to install.
        dtypes: in which it computes; "bf16" and "int8" only where the processor multiplies them
            itself.
        reads_onnx: whether it starts from the ONNX file.
        fuses: whether it takes the operations between two int8 layers into the first by itself;
            else those with int8 kernels are quantised too.
    """

    load: Callable[[Job], Loaded]
    module: str
    package: str
    dtypes: tuple[str, ...] = ("fp32",)
    reads_onnx: bool = False
    fuses: bool = False

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        return _absent(self.module, self.package) or (
            _absent("onnx", "onnx") if self.reads_onnx else None
        )

    def lacks(self, dtype: str) -> str | None:
        """Why a dtype of its own is of no use here; None if it is."""
        if dtype == "bf16" and not native_bf16():
            return "this processor does not multiply bf16 itself"
        if dtype == "int8":
            if not native_int8():
                return "this processor has no int8 units that are known here (VNNI or AMX)"
            absent = _absent("onnxruntime", "onnxruntime")
            return absent and f"{absent}; it quantises the network"
        return None

    def version(self) -> str | None:
        """Of the installed package."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


def _absent(module: str, package: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return f"{package} is not installed (pip install {package})"
    return None


def _regrow(job: Job) -> Loaded:
    from regrow_runtime.network import load

    network = load(job.packed, threads=job.threads)

    def run(inputs: list[Any]) -> list[Any]:
        outputs = network(*inputs)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    return Loaded(lambda batch: run, network.isa, network.profile)


def _onnxruntime(job: Job) -> Loaded:
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(job.onnx, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return Loaded(
        lambda batch: lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))
    )


def _openvino(job: Job) -> Loaded:
    vino = importlib.import_module("openvino")
    core = vino.Core()
    settings = {
        # Of int8: what is left over, as in ONNX Runtime. bf16 for it made no difference.
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[job.dtype],
        "INFERENCE_NUM_THREADS": job.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "ENABLE_HYPER_THREADING": True,  # else it may use fewer threads than it was given
    }

    def prepare(batch: int) -> Run:
        model = core.read_model(job.onnx)  # A fixed batch is faster than a dynamic one.
        shapes = {
            each.any_name: [batch, *(axis.get_length() for axis in list(each.partial_shape)[1:])]
            for each in model.inputs
        }
        model.reshape(shapes)
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        count = len(model.outputs)

        def run(inputs: list[Any]) -> list[Any]:
            found = request.infer(inputs, share_inputs=True)
            return [found[index] for index in range(count)]

        return run

    return Loaded(prepare)


def _torch(job: Job) -> Loaded:
    import torch

    from regrow.bench.timing.source import read_source
    from regrow.bench.timing.torch_graph import TorchNetwork, run_numpy

    torch.set_num_threads(job.threads)
    network = TorchNetwork(read_source(job.packed))
    if job.dtype == "bf16":
        network.to(torch.bfloat16)
    return Loaded(lambda batch: lambda inputs: run_numpy(network, inputs))


def _deepsparse(job: Job) -> Loaded:
    deepsparse = importlib.import_module("deepsparse")

    def prepare(batch: int) -> Run:
        engine = deepsparse.compile_model(job.onnx, batch_size=batch, num_cores=job.threads)
        return lambda inputs: list(engine.run(inputs))

    return Loaded(prepare)


ENGINES: Mapping[str, Engine] = {
    "regrow": Engine(_regrow, "regrow_runtime", "regrow-runtime"),
    "onnxruntime": Engine(
        _onnxruntime, "onnxruntime", "onnxruntime", ("fp32", "int8"), reads_onnx=True
    ),
    "openvino": Engine(
        _openvino, "openvino", "openvino", ("fp32", "bf16", "int8"), reads_onnx=True, fuses=True
    ),
    "torch": Engine(_torch, "torch", "torch", ("fp32", "bf16")),
    "deepsparse": Engine(_deepsparse, "deepsparse", "deepsparse", reads_onnx=True),
}
"""By name; the first is the runtime itself, with which all others are compared."""
