"""ONNX files: what the reference evaluator and ONNX Runtime make of them, and what is refused."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.numpy_helper import from_array, to_array
from onnx.reference import ReferenceEvaluator
from packed_example import Net, trained
from torch import Tensor, nn

from regrow.core import files
from regrow.core.errors import RegrowError
from regrow.export import onnx as module
from regrow.export.onnx import export_onnx
from regrow.model.inspection import inspect


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Net, dict[str, Tensor], bytes, Any]:
    """A network, its masks, the file of it and what the export told."""
    model, keep = trained()
    folder = tmp_path_factory.mktemp("onnx")
    told = export_onnx(nn.DataParallel(model), folder / "net.onnx", images(5))
    assert os.listdir(folder) == ["net.onnx"]  # no side files
    return model, keep, (folder / "net.onnx").read_bytes(), told


def test_the_reference_evaluator_computes_the_network(written: Any) -> None:
    model, _, content, _ = written
    evaluator = ReferenceEvaluator(onnx.load_from_string(content))
    for count in (1, 2, 7):
        x = images(count, seed=count)
        (found,) = evaluator.run(None, {evaluator.input_names[0]: x.numpy()})
        np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_the_file_tells_opset_batch_and_nothing_of_this_machine(written: Any) -> None:
    _, _, content, told = written
    proto = onnx.load_from_string(content)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 18)]
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b".py" not in content
    assert "opset 18" in told.note
    assert "regrow pack" in told.note


def test_counts_and_sizes(written: Any) -> None:
    model, keep, content, told = written
    counts = inspect(model)
    kept = sum(int(keep[name].sum()) for name in ("conv.weight", "module.weight"))
    assert (told.format, told.bytes) == ("onnx", len(content))
    assert (told.nonzeros, told.weights) == (kept, 8 * 3 * 9 + 10 * 8)
    assert told.sparsity == counts.sparsity
    assert told.dense_fp32_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert set(told.to_dict()) == {
        *("format", "bytes", "dense_fp32_bytes", "nonzeros", "weights", "sparsity"),
        *("max_abs_diff", "note"),
    }
    assert f"{told.bytes:,} bytes" in str(told)


def test_zeros_stay_zeros_when_norms_are_folded(written: Any) -> None:
    _, keep, content, _ = written
    graph = onnx.load_from_string(content).graph
    weights = {each.name: to_array(each) for each in graph.initializer}
    np.testing.assert_array_equal(weights["conv.weight"] != 0, keep["conv.weight"].numpy())
    linear = [w for w in weights.values() if w.ndim == 2]
    assert linear
    for weight in linear:
        mask = keep["module.weight"].numpy()
        np.testing.assert_array_equal(weight != 0, mask if weight.shape == mask.shape else mask.T)


def test_equal_models_give_equal_files_and_stay_as_they_were(
    written: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, _ = trained()
    model.conv.train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    random = torch.get_rng_state()
    told = export_onnx(model, tmp_path / "again.onnx", images(5))
    assert (tmp_path / "again.onnx").read_bytes() == written[2]
    assert told == written[3]
    assert [m.training for m in model.modules()] == [m is model.conv for m in model.modules()]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert capfd.readouterr() == ("", "")


def biased(content: bytes, by: float) -> bytes:
    """The file with another last bias: every output is off by just so much."""
    proto = onnx.load_from_string(content)
    for each in proto.graph.initializer:
        if each.name == "head.bias":
            each.CopyFrom(from_array((to_array(each) + by).astype(np.float32), each.name))
            return proto.SerializeToString()
    raise AssertionError("no head.bias")


@settings(max_examples=12, deadline=None)
@given(share=st.floats(1e-6, 1e-2))
def test_the_difference_is_told_and_bounded(
    share: float, written: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, _, content, _ = written
    path = tmp_path_factory.getbasetemp() / "biased.onnx"
    path.write_bytes(b"before")
    x = images(4)
    scale = min(float(model(part).detach().abs().max()) for part in (x, x[:1]))
    by = share * scale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_converted", lambda *_: biased(content, by))
        if share < 1e-4 / 2:
            told = export_onnx(model, path, x)
            assert told.max_abs_diff == pytest.approx(by, rel=0.02, abs=1e-5)
            assert path.read_bytes() == biased(content, by)
        elif share > 1e-4 * 2:
            with pytest.raises(RegrowError, match=r"biased\.onnx was not written.*tolerance"):
                export_onnx(model, path, x)
            assert path.read_bytes() == b"before"
            assert export_onnx(model, path, x, tolerance=2 * share).max_abs_diff > 0


def broken(content: bytes) -> bytes:
    proto = onnx.load_from_string(content)
    proto.graph.node[0].op_type = "NoSuchOperator"
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: biased(content, float("nan")), "from torch's"),
        (broken, "unsound"),
        (lambda content: content[: len(content) // 2], "unsound"),
    ],
    ids=["nan", "operator", "cut"],
)
def test_an_unsound_file_never_takes_its_name(
    change: Any, reason: str, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, content, _ = written
    monkeypatch.setattr(module, "_converted", lambda *_: change(content))
    with pytest.raises(RegrowError, match=rf"x\.onnx was not written.*{reason}"):
        export_onnx(model, tmp_path / "x.onnx", images(3))
    assert not os.listdir(tmp_path)


class Pair(nn.Module):
    """Two inputs, one of them whole numbers; outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.line = nn.Embedding(5, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, token: Tensor) -> dict[str, Any]:
        hidden = self.embed(token) + x
        return {"b": self.line(hidden), "a": [hidden.sum(1), token + 1]}


def test_several_inputs_and_outputs_of_one_sample(tmp_path: Path) -> None:
    model, path = Pair().eval(), tmp_path / "pair.onnx"
    told = export_onnx(model, path, (torch.randn(1, 4), torch.tensor([3])))
    assert told.weights == 8
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x, token = torch.randn(6, 4), torch.tensor([0, 4, 2, 2, 1, 3])
    line, total, more = session.run(None, {"x": x.numpy(), "token": token.numpy()})
    expected = model(x, token)
    np.testing.assert_allclose(line, expected["b"].detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(total, expected["a"][0].detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(more, token + 1)


class Broken(nn.Module):
    """A linear layer, and a forward of the test's own."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.line, self.own = nn.Linear(4, 4), forward

    def forward(self, x: Tensor) -> Any:
        return self.own(self.line(x))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda y: y if y.sum() > 0 else -y, "cannot be expressed in ONNX: .*data-dependent"),
        (torch.special.bessel_j0, "cannot be expressed in ONNX: .*bessel_j0"),
        (lambda y: y / 0, "on a batch of 3 gives 12 NaN or infinite values in output 0"),
        (lambda y: y.reshape(3, 4), "on a batch of 1 fails: RuntimeError: shape"),
        (lambda y: (y, 3), "an output is a int, and ONNX has tensors only"),
        (lambda y: y if len(y) > 1 else -y, "batch sizes differently, so x would be of one size"),
    ],
    ids=["control flow", "operator", "nan", "reshape", "no tensor", "batch size"],
)
def test_models_that_cannot_be_exported(
    forward: Any, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RegrowError, match=reason) as refused:
        export_onnx(Broken(forward), tmp_path / "x.onnx", torch.rand(3, 4) + 1)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert not os.listdir(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_outputs_of_another_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 4]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "same", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 18)
    same = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    monkeypatch.setattr(module, "_converted", lambda *_: same.SerializeToString())
    with pytest.raises(RegrowError, match=r"of shapes \[\(3, 4\)\], torch of \[\(3, 2\)\]"):
        export_onnx(Broken(lambda y: y[:, :2]), tmp_path / "x.onnx", torch.rand(3, 4))
    assert not os.listdir(tmp_path)


def test_a_model_that_cannot_be_copied(tmp_path: Path) -> None:
    model = Broken(torch.relu)
    model.cache = model.line.weight * 2  # part of a graph
    with pytest.raises(RegrowError, match="Broken cannot be copied"):
        export_onnx(model, tmp_path / "x.onnx", torch.rand(3, 4))


def test_a_model_without_values(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"conv\.weight has no values yet"):
        export_onnx(Net().to("meta"), tmp_path / "x.onnx", images(2))


def test_weights_of_nan(tmp_path: Path) -> None:
    model, _ = trained()
    with torch.no_grad():
        model.head.bias[1] = torch.nan
    with pytest.raises(RegrowError, match="Net on a batch of 2 gives 2 NaN"):
        export_onnx(model, tmp_path / "x.onnx", images(2))


@pytest.mark.parametrize(
    "inputs", [torch.rand(0, 3, 8, 8), torch.tensor(1.0), [], (torch.rand(2), torch.rand(3)), [3]]
)
def test_inputs_without_a_batch(inputs: Any, tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="the same number of samples"):
        export_onnx(trained()[0], tmp_path / "x.onnx", inputs)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RegrowError, match=rf'{missing}.*pip install "regrow\[onnx\]"'):
        export_onnx(trained()[0], tmp_path / "x.onnx", images(2))


def test_targets_that_cannot_be_written(
    written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, content, _ = written

    def never(*_: Any) -> bytes:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(module, "_converted", never)
    with pytest.raises(RegrowError, match="is a folder; give the name of a file"):
        export_onnx(model, tmp_path, images(2))
    with pytest.raises(RegrowError, match=r"no folder .*nosuch; create it first"):
        export_onnx(model, tmp_path / "nosuch" / "x.onnx", images(2))
    free = files.shutil.disk_usage(tmp_path)._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "disk_usage", lambda _: free)
        with pytest.raises(RegrowError, match="100 are free"):
            export_onnx(model, tmp_path / "x.onnx", images(2))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_LIMIT", 1_000)
        with pytest.raises(RegrowError, match=r"one ONNX file less than 1,000"):
            export_onnx(model, tmp_path / "x.onnx", images(2))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_converted", lambda *_: content)
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RegrowError, match=r"x\.onnx cannot be written: No space"):
        export_onnx(model, tmp_path / "x.onnx", images(2))
    assert not os.listdir(tmp_path)
