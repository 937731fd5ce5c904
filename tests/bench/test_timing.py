"""Other forms of a packed graph against the runtime; turns, statistics, and workers that die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from regrow.bench.timing import Settings, time_network
from regrow.bench.timing import engines as engines_module
from regrow.bench.timing.engines import ENGINES, Engine, Job, Loaded
from regrow.bench.timing.measure import check
from regrow.bench.timing.process import Worker, WorkerFailed
from regrow.bench.timing.rounds import by_module, compared, interleaved, summary
from regrow.bench.timing.source import Source, read_source, source_of
from regrow.bench.timing.torch_graph import FUNCTIONS, TorchNetwork, run_numpy
from regrow.bench.timing.worker import pin, serve
from regrow.core.errors import RegrowError

pytest.importorskip("regrow_runtime", reason="the runtime is not installed")

from regrow_runtime.file import Array, Contents
from regrow_runtime.graph import Graph, Node
from regrow_runtime.network import Network
from regrow_runtime.operations import OPERATIONS

Floats = np.ndarray[Any, Any]
FACES = {"stride": [2, 1], "padding": [1, 0], "dilation": [1, 2], "groups": 2}
WINDOW: dict[str, Any] = {"kernel": [3, 2], "stride": [2, 2], "padding": [1, 1]}
# Operation, shapes of its inputs, shapes of its arrays, attributes.
CASES: list[tuple[str, list[tuple[int, ...]], dict[str, tuple[int, ...]], dict[str, Any]]] = [
    *((op, [(3, 4)], {}, {}) for op in ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish")),
    *((op, [(7,)], {}, {}) for op in ("hardsigmoid", "mish", "softplus")),
    ("conv2d", [(4, 7, 6)], {"weight": (6, 2, 3, 2), "bias": (6,)}, FACES),
    ("conv2d", [(4, 7, 6)], {"weight": (6, 2, 3, 2)}, FACES),
    ("linear", [(5,)], {"weight": (3, 5), "bias": (3,)}, {}),
    ("linear", [(5,)], {"weight": (3, 5)}, {}),
    ("linear", [(4, 5)], {"weight": (3, 5), "bias": (3,)}, {}),
    ("linear", [(4, 5)], {"weight": (3, 5)}, {}),
    ("batch_norm", [(3, 4, 2)], {"mean": (3,), "var": (3,), "bias": (3,)}, {"eps": 1e-3}),
    ("batch_norm", [(3,)], {"mean": (3,), "var": (3,), "weight": (3,)}, {"eps": 1e-3}),
    ("layer_norm", [(3, 4)], {"weight": (3, 4), "bias": (3, 4)}, {"axes": 2, "eps": 1e-5}),
    ("layer_norm", [(3, 4)], {}, {"axes": 1, "eps": 1e-5}),
    ("leaky_relu", [(3, 4)], {}, {"slope": 0.2}),
    ("elu", [(3, 4)], {}, {"alpha": 0.7}),
    ("gelu", [(3, 4)], {}, {"tanh": True}),
    ("gelu", [(3, 4)], {}, {"tanh": False}),
    ("clamp", [(3, 4)], {}, {"low": -1.0, "high": None}),
    ("clamp", [(3, 4)], {}, {"low": None, "high": 0.5}),
    ("clamp", [(3, 4)], {}, {"low": None, "high": None}),
    ("prelu", [(3, 4, 2)], {"weight": (3,)}, {}),
    ("prelu", [(3, 4, 2)], {"weight": ()}, {}),
    ("softmax", [(3, 4)], {}, {"axis": 1}),
    ("log_softmax", [(3, 4)], {}, {"axis": 2}),
    ("max_pool2d", [(2, 7, 6)], {}, {**WINDOW, "dilation": [1, 2], "ceil": True}),
    ("avg_pool2d", [(2, 7, 6)], {}, {**WINDOW, "ceil": True, "count_padding": True}),
    ("adaptive_avg_pool2d", [(2, 6, 4)], {}, {"size": [1, 1]}),
    ("adaptive_avg_pool2d", [(2, 6, 4)], {}, {"size": [3, 2]}),
    ("adaptive_avg_pool2d", [(2, 7, 5)], {}, {"size": [3, 4]}),
    ("mean", [(3, 4, 5)], {}, {"axes": [2, 3], "keep": False}),
    ("mean", [(3, 4, 5)], {}, {"axes": [1], "keep": True}),
    *((op, [(3, 4, 5), (3, 1, 5)], {}, {}) for op in ("add", "sub", "mul")),
    ("add_scalar", [(3,)], {}, {"value": 0.3}),
    ("mul_scalar", [(3,)], {}, {"value": -1.7}),
    ("add_array", [(3, 4, 5)], {"weight": (1, 4, 5)}, {}),
    ("mul_array", [(3, 4, 5)], {"weight": (1, 3, 1, 1)}, {}),
    ("concat", [(3, 4), (2, 4)], {}, {"axis": 1}),
    ("flatten", [(3, 4)], {}, {"shape": [12]}),
    ("reshape", [(3, 4)], {}, {"shape": [2, 3, 2]}),
    ("reshape", [(1,)], {}, {"shape": []}),
    ("permute", [(3, 4, 5)], {}, {"axes": [0, 3, 1, 2]}),
    ("slice", [(3, 9)], {}, {"axis": 2, "start": 1, "stop": 8, "step": 3}),
    ("pad", [(3, 4)], {}, {"before": [1, 0], "after": [0, 2], "value": -1.5}),
]


def contents(
    nodes: list[Node], inputs: dict[str, tuple[int, ...]], arrays: dict[str, Floats]
) -> Contents:
    stored = {name: Array(np.asarray(each, np.float32), "float32") for name, each in arrays.items()}
    described = tuple((name, shape, "float32") for name, shape in inputs.items())
    return Contents(stored, Graph(described, (nodes[-1].output,), tuple(nodes)), {})


def case(
    op: str,
    shapes: list[tuple[int, ...]],
    arrays: dict[str, tuple[int, ...]],
    attributes: dict[str, Any],
) -> Contents:
    """One node; variances are positive."""
    random = np.random.default_rng(0)
    values = {role: random.standard_normal(shape) for role, shape in arrays.items()}
    if "var" in values:
        values["var"] = values["var"] ** 2 + 0.5
    names = [f"x{index}" for index in range(len(shapes))]
    node = Node(op, tuple(names), "y", {role: role for role in arrays}, attributes, "a.b")
    return contents([node], dict(zip(names, shapes, strict=True)), values)


def by_onnx(source: Source, inputs: list[Floats]) -> list[Floats]:
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    from regrow.bench.timing.onnx_graph import onnx_model

    model = onnx_model(source)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    found: list[Floats] = session.run(None, dict(zip(names, inputs, strict=True)))
    return found


def by_torch(source: Source, inputs: list[Floats]) -> list[Floats]:
    return run_numpy(TorchNetwork(source), inputs)


FORMS: dict[str, Callable[[Source, list[Floats]], list[Floats]]] = {
    "onnx": by_onnx,
    "torch": by_torch,
}


def same(packed: Contents, form: str, batches: tuple[int, ...] = (1, 3)) -> None:
    """The form computes what the runtime computes."""
    source = source_of(packed)
    network = Network(packed, threads=1)
    for batch in batches:
        inputs = [3 * each for each in source.inputs(batch)]
        expected = network(*inputs)
        (found,) = FORMS[form](source, inputs)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", CASES, ids=lambda which: which[0])
def test_every_operation(form: str, which: Any) -> None:
    same(case(*which), form)


def test_the_cases_name_every_operation() -> None:
    assert {which[0] for which in CASES} == set(OPERATIONS) == set(FUNCTIONS)


@settings(max_examples=40, deadline=None)
@given(
    st.booleans(),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    st.booleans(),
    st.booleans(),
    st.tuples(st.integers(0, 6), st.integers(0, 6)),
)
def test_pooling_of_any_window(
    mean: bool,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padded: tuple[float, float],
    ceil: bool,
    count: bool,
    more: tuple[int, int],
) -> None:
    padding = [int(k * p) for k, p in zip(kernel, padded, strict=True)]
    attributes: dict[str, Any] = {"kernel": list(kernel), "stride": list(stride), "ceil": ceil}
    attributes |= {"padding": padding}
    attributes |= {"count_padding": count} if mean else {"dilation": list(dilation)}
    reach = [(k - 1) * (1 if mean else d) + 1 for k, d in zip(kernel, dilation, strict=True)]
    image = (2, *(r + m for r, m in zip(reach, more, strict=True)))
    packed = case("avg_pool2d" if mean else "max_pool2d", [image], {}, attributes)
    for form in FORMS:
        same(packed, form, (2,))


def norms(op: str) -> Contents:
    """A layer and a norm that may be folded; the layer is read by nobody else."""
    random = np.random.default_rng(1)
    conv = op == "conv2d"
    weight = random.standard_normal((5, 3, 3, 3) if conv else (5, 3))
    arrays = {"w": weight, "m": random.standard_normal(5), "v": random.random(5) + 0.1}
    arrays |= {"g": random.standard_normal(5)}
    same_size = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    roles = {"mean": "m", "var": "v", "weight": "g"}
    nodes = [
        Node(op, ("x",), "a", {"weight": "w"}, same_size if conv else {}),
        Node("batch_norm", ("a",), "b", roles, {"eps": 1e-5}),
        Node("relu", ("b",), "c"),
    ]
    return contents(nodes, {"x": (3, 4, 4) if conv else (3,)}, arrays)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("op", ["conv2d", "linear"])
def test_norms_behind_layers(op: str, form: str) -> None:
    packed = norms(op)
    same(packed, form)
    layers = [node.op for node, _ in TorchNetwork(source_of(packed))._nodes]
    assert layers == [op, "relu"]
    # With a second reader of what lies between, the norm stands alone.
    assert packed.graph is not None
    nodes = [*packed.graph.nodes, Node("add", ("a", "c"), "d")]
    values = {name: each.values for name, each in packed.arrays.items()}
    same(contents(nodes, {packed.graph.inputs[0][0]: packed.graph.inputs[0][1]}, values), form)


def test_an_output_may_be_an_input_or_be_given_twice() -> None:
    packed = norms("linear")
    assert packed.graph is not None
    graph = Graph(packed.graph.inputs, ("x", "c", "c"), packed.graph.nodes)
    twice = Contents(packed.arrays, graph, {})
    source = source_of(twice)
    inputs = source.inputs(2)
    for form in FORMS.values():
        for found, expected in zip(form(source, inputs), Network(twice)(*inputs), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_gives_float32_that_is_near() -> None:
    source = source_of(norms("conv2d"))
    inputs = source.inputs(2)
    (expected,) = by_torch(source, inputs)
    (found,) = run_numpy(TorchNetwork(source).to(torch.bfloat16), inputs)
    assert found.dtype == np.float32
    told = compared([found], [expected], "bf16")
    assert 1e-6 < told["relative_diff"] < 0.05


# Statistics and turns.


def test_quantiles_in_milliseconds() -> None:
    told = summary([i / 1000 for i in range(11)])
    assert told == {
        "median_ms": pytest.approx(5),
        "p10_ms": pytest.approx(1),
        "p90_ms": pytest.approx(9),
        "calls": 11,
    }


def test_comparison_marks_what_is_wrong() -> None:
    right = [np.array([1.0, -4.0], np.float32)]
    assert compared(right, right, "fp32") == {"max_abs_diff": 0.0, "relative_diff": 0.0}
    off = [np.array([1.0, -4.008], np.float32)]
    told = compared(off, right, "fp32")
    assert told["relative_diff"] == pytest.approx(0.002, rel=1e-3)
    assert "away" in told["error"]
    assert "error" not in compared(off, right, "bf16")
    nan = compared([np.array([np.nan, -4.0], np.float32)], right, "bf16")
    assert "not numbers" in nan["error"]
    assert json.loads(json.dumps(nan, allow_nan=False)) == nan
    assert "shapes" in compared([right[0][:1]], right, "fp32")["error"]


def test_steps_of_a_module_are_taken_together() -> None:
    names = ["a", "a", "b", "a"]
    work = [0.0, 4e3, 0.0, 1e3]
    steps = [
        {"module": name, "seconds": 1e-6, "multiply_adds": macs, "peak_share": macs / 1e4}
        for name, macs in zip(names, work, strict=True)
    ]
    told = [tuple(each.values()) for each in by_module(steps)]
    assert told == [
        ("a", pytest.approx(2), pytest.approx(2), pytest.approx(0.2)),
        ("b", pytest.approx(1), 0, 0),
        ("a", pytest.approx(1), pytest.approx(1), pytest.approx(0.1)),
    ]


class Fake:
    """Makes calls of a fixed length, and writes down when."""

    def __init__(self, name: str, seconds: float, log: list[tuple[str, int]], last: int = 99):
        self.name, self.seconds, self.log, self.last = name, seconds, log, last

    def __call__(self, calls: int) -> list[float]:
        self.log.append((self.name, calls))
        if sum(name == self.name for name, _ in self.log) > self.last:
            raise WorkerFailed("gone")
        return [self.seconds] * calls


def test_engines_take_turns() -> None:
    log: list[tuple[str, int]] = []
    fakes = {"a": Fake("a", 0.01, log), "b": Fake("b", 0.2, log), "c": Fake("c", 1e-7, log)}
    times, failed = interleaved(fakes, 1.0, rounds=4)
    assert not failed
    assert log[:6] == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]
    rounds = [[name for name, _ in log[i : i + 3]] for i in range(6, len(log), 3)]
    assert rounds == [list("abc"), list("bca"), list("cab"), list("abc")]
    # 0.25 s a turn: 25 calls of 0.01 s, one of 0.2 s, and no more than can be kept.
    assert dict(log[6:9]) == {"a": 25, "b": 1, "c": 2000}
    assert {name: len(each) for name, each in times.items()} == {"a": 100, "b": 4, "c": 8000}


def test_who_fails_is_told_of_and_the_others_go_on() -> None:
    log: list[tuple[str, int]] = []
    fakes = {"a": Fake("a", 0.1, log), "b": Fake("b", 0.1, log, 4), "c": Fake("c", 0.1, log, 0)}
    times, failed = interleaved(fakes, 1.0, rounds=5)
    assert failed == {"b": "gone", "c": "gone"}
    assert set(times) == {"a"}
    assert len(times["a"]) == 10
    assert interleaved({}, 1.0) == ({}, {})


# Workers.


def speak(job: Job, monkeypatch: pytest.MonkeyPatch, *requests: dict[str, Any]) -> list[Any]:
    """What the worker answers, in this process."""
    monkeypatch.setattr("regrow.bench.timing.worker.pin", lambda threads: None)
    lines = [json.dumps(each) for each in (vars(job), *requests)]
    answers = StringIO()
    serve(StringIO("\n".join(lines)), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    from regrow.export.deploy import pack

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    pack(model, tmp_path / "m.regrow", torch.randn(2, 2, 6, 6))
    return tmp_path / "m.regrow"


def test_a_worker_prepares_times_and_profiles(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, outputs = tmp_path / "in.npz", tmp_path / "out.npz"
    x = read_source(packed).inputs(3)
    np.savez(inputs, *x)
    start, prepared, burst, profile, wrong = speak(
        Job("regrow", "fp32", 1, str(packed), ""),
        monkeypatch,
        {"do": "prepare", "batch": 3, "inputs": str(inputs), "outputs": str(outputs)},
        {"do": "burst", "calls": 4},
        {"do": "profile", "batch": 3},
        {"do": "prepare"},
        {"do": "burst", "calls": 1},
    )
    assert start["isa"] == Network(case(*CASES[0])).isa
    assert prepared["peak_mb"] >= 0
    with np.load(outputs) as given:
        (expected,) = by_torch(read_source(packed), x)
        np.testing.assert_allclose(given["arr_0"], expected, atol=1e-5)
    assert len(burst["seconds"]) == 4
    assert min(burst["seconds"]) > 0
    assert [layer["module"] for layer in by_module(profile["layers"])] == ["0", "3", "4"]
    assert wrong == {"error": "KeyError: 'batch'"}  # and then it ends


def test_inputs_are_the_same_for_the_same_seed(packed: Path) -> None:
    source = read_source(packed)
    np.testing.assert_array_equal(source.inputs(3)[0], source.inputs(3)[0])
    assert source.inputs(3)[0].shape == (3, 2, 6, 6)
    assert not np.array_equal(source.inputs(3)[0], source.inputs(3, seed=1)[0])


def test_peak_memory_grows_by_what_is_touched() -> None:
    # In a process of its own: where memory is kept when it is freed, nothing grows.
    program = (
        "import numpy as np\n"
        "from regrow.bench.timing.worker import peak_bytes\n"
        "before = peak_bytes()\n"
        "block = np.ones(2**28 // 8)\n"
        "print(peak_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert 0.8 * 2**28 < int(done.stdout) < 1.2 * 2**28


def test_a_worker_stays_on_as_many_processors_as_it_has_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[list[int]] = []
    siblings = {4: 0, 5: 1, 6: 0, 7: 1}  # two threads of each of two cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(siblings), raising=False)
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda pid, chosen: found.append(chosen), raising=False
    )
    monkeypatch.setattr("regrow.bench.timing.worker._sibling", siblings.__getitem__)
    for threads in (1, 2, 3):
        pin(threads)
    assert found == [[4], [4, 6], [4, 6, 5]]


JOB = Job("torch", "fp32", 1, "", "")


def child(code: str) -> Worker:
    return Worker(JOB, (sys.executable, "-c", f"import sys, os, time\n{code}"), patience=20)


def test_a_dying_child_is_described() -> None:
    with child("input(); print('last words', file=sys.stderr); os._exit(3)") as worker:
        with pytest.raises(WorkerFailed, match=r"died \(exit code 3\): last words"):
            worker.start()
        with pytest.raises(WorkerFailed, match="died"):  # it stays dead
            worker.start()
    with child("os.kill(os.getpid(), 9)") as worker, pytest.raises(WorkerFailed, match="signal 9"):
        worker.start()


def test_a_child_that_hangs_is_killed() -> None:
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    late = pytest.raises(WorkerFailed, match=r"no answer in 0\.2 s")
    with Worker(JOB, command, patience=0.2) as worker, late:
        worker.start()
    assert worker._process.returncode == -9


def test_the_child_gets_its_threads_and_ends_with_the_context() -> None:
    code = "input(); print('{\"omp\": ' + os.environ['OMP_NUM_THREADS'] + '}', flush=True); input()"
    with child(code) as worker:
        assert worker.start() == {"omp": 1}
    assert worker._process.returncode is not None


# All of it.

DIES = """
import json, sys
for line in sys.stdin:
    if "burst" in line:
        sys.exit("out of luck")
    if "prepare" in line:
        import numpy
        numpy.savez(json.loads(line)["outputs"], numpy.zeros((2, 3), "float32"))
    print(json.dumps({"isa": None, "peak_mb": 1.0}), flush=True)
"""


def test_from_the_file_to_rows(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes; one of them dies while it is timed."""
    fake = Engine(lambda job: Loaded(lambda batch: list), "numpy", "numpy")
    absent = Engine(lambda job: Loaded(lambda batch: list), "no_such_module", "no-such-package")
    monkeypatch.setattr(engines_module, "native_bf16", lambda: False)
    table = {**ENGINES, "dies": fake, "absent": absent}
    monkeypatch.setattr("regrow.bench.timing.measure.ENGINES", table)

    def open_worker(job: Job) -> Worker:
        return Worker(job, (sys.executable, "-c", DIES)) if job.engine == "dies" else Worker(job)

    told: list[str] = []
    chosen = Settings((2,), (1,), ("torch", "dies", "absent"), seconds=0.02, layers=True)
    timing = time_network(packed, chosen, told.append, open_worker)
    assert [(row["engine"], row["dtype"]) for row in timing.rows] == [
        ("regrow", "fp32"),
        ("torch", "fp32"),
    ]
    for row in timing.rows:
        assert (row["batch"], row["threads"]) == (2, 1)
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert row["calls"] >= 10
        assert row["relative_diff"] < 1e-5
        assert row["peak_mb"] >= 0
        assert "error" not in row
    skipped = {(each["engine"], each["dtype"]): each for each in timing.skipped}
    assert set(skipped) == {("dies", "fp32"), ("absent", None), ("torch", "bf16")}
    assert "died (exit code 1): out of luck" in skipped["dies", "fp32"]["reason"]
    assert skipped["dies", "fp32"]["batch"] == 2
    assert "pip install no-such-package" in skipped["absent", None]["reason"]
    assert timing.max_abs_diff == timing.rows[0]["max_abs_diff"]
    assert timing.versions["torch"].startswith(torch.__version__.split("+")[0])
    assert [layer["module"] for layer in timing.layers] == ["0", "3", "4"]
    assert timing.layers[0]["gmacs"] > 0
    assert 0 < timing.layers[0]["peak_share"] < 1.5
    assert timing.isa in ("avx512", "avx2", "neon", "portable")
    assert any("loads the network" in words for words in told)


# Refusals.


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (Settings(batches=()), "at least one sample"),
        (Settings(batches=(4, 0)), "at least one sample"),
        (Settings(threads=(0,)), "threads are at least 1"),
        (Settings(threads=(1, 10**6)), "this process may use"),
        (Settings(against=("onnxruntme",)), "'onnxruntime'"),
        (Settings(seconds=0), "seconds are more than 0"),
        (Settings(seconds=float("nan")), "seconds are more than 0"),
    ],
)
def test_refusals_of_settings(chosen: Settings, words: str) -> None:
    with pytest.raises(RegrowError, match=words):
        check(chosen)


def test_refusals_of_files(packed: Path, tmp_path: Path) -> None:
    from regrow.export.packed import pack
    from regrow_runtime.file import write

    (tmp_path / "old.regrow").write_bytes(pack({"w": torch.ones(3)}))
    write(
        tmp_path / "bare.regrow",
        Contents({"w": Array(np.ones(3, np.float32), "float32")}, None, {}),
    )
    data = bytearray(packed.read_bytes())
    data[-1] ^= 1
    (tmp_path / "hurt.regrow").write_bytes(data)
    for name, words in [
        ("none.regrow", "there is no"),
        ("old.regrow", "format 1"),
        ("bare.regrow", "no graph"),
        ("hurt.regrow", "hurt.regrow"),
        (".", "."),
    ]:
        with pytest.raises(RegrowError, match=words):
            read_source(tmp_path / name)
    assert os.path.exists(packed)
