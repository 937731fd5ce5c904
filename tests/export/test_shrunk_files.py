"""Smaller networks on disk: the same bits in another process, and damage is refused."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from shrunk_example import NETS, Residual, fresh, halved, inputs, outputs, tree
from torch import nn

import regrow
from regrow.core.errors import RegrowError
from regrow.engine.surgery import Attribute, Edits, apply
from regrow.export.shrunk import EDITS, TENSORS

HALVED = {kind: halved(kind) for kind in NETS}


@pytest.fixture(params=NETS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> Path:
    regrow.save_shrunk(HALVED[kind][1], tmp_path / "small")
    return tmp_path / "small"


def test_the_groups_of_the_examples() -> None:
    found = {
        kind: {g.name: len(g) for g in regrow.groups(model, inputs(kind))}
        for kind, (model, _) in HALVED.items()
    }
    assert found == {
        "residual": {"stem": 4},
        "tokens": {"embed": 6, "qkv": 4, "wide": 8},
    }


def test_edits_are_plain_data(kind: str) -> None:
    model, done = HALVED[kind]
    data = json.loads(json.dumps(done.edits.json()))
    edits = Edits.of(data)
    assert edits.json() == data
    assert edits.attributes == done.edits.attributes
    again = apply(model, edits)
    for name, tensor in done.model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert torch.equal(outputs(again, inputs(kind, 1)), outputs(done.model, inputs(kind, 1)))


def test_edits_of_edits(kind: str) -> None:
    """A smaller network can be cut again, and read from both folders."""
    _, done = HALVED[kind]
    groups = regrow.groups(done.model, inputs(kind))
    keep = {group.name: torch.arange(len(group)) == 0 for group in groups}
    least = regrow.shrink(done.model, inputs(kind), keep, groups=groups)
    both = apply(apply(HALVED[kind][0], done.edits), least.edits)
    assert torch.equal(outputs(both, inputs(kind, 2)), outputs(least.model, inputs(kind, 2)))


@pytest.mark.parametrize("names", [("residual",), ("tokens",)])
def test_a_fresh_process_computes_the_same_bits(names: tuple[str], tmp_path: Path) -> None:
    kind = names[0]
    done = HALVED[kind][1]
    regrow.save_shrunk(done, tmp_path / "small")
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch, regrow
from shrunk_example import fresh, inputs, outputs
torch.set_num_threads(1)
model = fresh({kind!r}, 99)
small = regrow.load_shrunk(model, {str(tmp_path / "small")!r})
assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
torch.save(outputs(small, inputs({kind!r}, 4)), {str(tmp_path / "out.pt")!r})
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = outputs(done.model, inputs(kind, 4))
    torch.set_num_threads(threads)
    assert torch.equal(torch.load(tmp_path / "out.pt", weights_only=True), expected)


def test_ties_modes_and_the_fresh_network_stay(kind: str, folder: Path) -> None:
    model = fresh(kind, 99).train()
    before = copy.deepcopy(model.state_dict())
    small = regrow.load_shrunk(nn.DataParallel(model), folder)
    assert small.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    if kind == "tokens":
        assert small.head.weight is small.embed.weight
        assert (small.num_heads, small.sizes, model.sizes) == (2, (4, 4), (8, 8))
        assert "head.weight" not in load_file(folder / TENSORS)
    else:
        assert small.table.shape == (4, 1, 1)
        assert small.inner.groups == 2


def test_no_pickle_is_written_or_read(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(os.listdir(folder)) == sorted([EDITS, TENSORS])

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle is read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    monkeypatch.setattr(torch, "load", never)
    regrow.load_shrunk(fresh(kind), folder)
    (folder / EDITS).write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(RegrowError, match="is damaged"):
        regrow.load_shrunk(fresh(kind), folder)


def test_edits_of_another_network(tmp_path: Path) -> None:
    done = HALVED["residual"][1]
    regrow.save_shrunk(done, tmp_path)
    with pytest.raises(RegrowError, match=r"of another network: this one has no stem\.weight"):
        regrow.load_shrunk(fresh("tokens"), tmp_path)
    wider = Residual()
    wider.norm = nn.BatchNorm2d(10)
    with pytest.raises(
        RegrowError, match=r"another network: norm\.weight has shape \(10,\) here and \(8,\) there"
    ):
        regrow.load_shrunk(wider, tmp_path)
    more = Residual()
    more.extra = nn.Linear(2, 2)
    with pytest.raises(RegrowError, match=r"only the network has extra\.bias"):
        regrow.load_shrunk(more, tmp_path)
    other = Residual()
    other.head.bias = nn.Parameter(torch.zeros(4))
    with pytest.raises(RegrowError, match=r"head\.bias has shape \(5,\) there and \(4,\) here"):
        regrow.load_shrunk(other, tmp_path)


def test_files_that_are_missing_or_unsound(kind: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"edits\.json cannot be read"):
        regrow.load_shrunk(fresh(kind), tmp_path / "nosuch")
    whole = (folder / TENSORS).read_bytes()
    for content in (b"", b"\x00" * 8, whole[:-1], whole[:60], b"\xff" * 40):
        (folder / TENSORS).write_bytes(content)
        with pytest.raises(RegrowError, match=r"model\.safetensors"):
            regrow.load_shrunk(fresh(kind), folder)
    (folder / TENSORS).unlink()
    with pytest.raises(RegrowError, match=r"model\.safetensors"):
        regrow.load_shrunk(fresh(kind), folder)


def test_tensors_of_another_kind(kind: str, folder: Path) -> None:
    """The bits of floats read as whole numbers would be another network."""
    state = load_file(folder / TENSORS)
    first = sorted(state)[0]
    save_file({**state, first: state[first].view(torch.int32)}, folder / TENSORS)
    with pytest.raises(RegrowError, match=r"model\.safetensors"):
        regrow.load_shrunk(fresh(kind), folder)


class Counted(nn.Linear):
    """A layer with state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"count": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"count": 1}


def test_state_that_is_no_tensor(tmp_path: Path) -> None:
    model, x = nn.Sequential(Counted(3, 4), nn.Linear(4, 2)).eval(), torch.randn(2, 3)
    done = regrow.shrink(model, x, {"0": torch.arange(4) < 3})
    with pytest.raises(RegrowError, match=r"0\._extra_state in the state dict is no tensor"):
        regrow.save_shrunk(done, tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RegrowError, match="file"):
        regrow.save_shrunk(HALVED["residual"][1], tmp_path / "file")
    with pytest.raises(RegrowError, match="file"):
        regrow.save_shrunk(HALVED["residual"][1], tmp_path / "file" / "inside")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[]", b"3", b"{}", b"{", b"\xff\xfe", b"[" * 100_000, b"NaN"),
        b'{"format": "regrow-edits"}',
        b'{"format": "regrow-edits", "version": 2, "tensors": {}, "attributes": []}',
        b'{"format": "regrow-edits", "version": 1, "tensors": [], "attributes": []}',
        b'{"format": "regrow-edits", "version": 1, "tensors": {}, "attributes": {"a": 1}}',
    ],
)
def test_edits_of_another_form(content: bytes, tmp_path: Path) -> None:
    regrow.save_shrunk(HALVED["residual"][1], tmp_path)
    (tmp_path / EDITS).write_bytes(content)
    with pytest.raises(RegrowError):
        regrow.load_shrunk(fresh("residual"), tmp_path)


VALUES = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([10**30, -(10**30), 2**63, 2**31, 0.5, 1e999, True, None, "", "x", [], {}]),
    st.lists(st.integers(0, 9), max_size=4),
)


@pytest.mark.parametrize("kept", [[0, 0, 1, 2], [6, 4, 2, 0], [0, 2, 4, 8], [-1, 2, 4, 6], []])
def test_indices_that_no_cut_leaves(kept: list[int]) -> None:
    model, done = HALVED["residual"]
    data = done.edits.json()
    data["tensors"]["stem.bias"]["keep"]["0"] = kept
    with pytest.raises(RegrowError, match="the edits are damaged"):
        apply(model, Edits.of(data))


def test_a_tuple_of_sizes_keeps_its_length() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    edits = Edits({}, {}, (Attribute("0", "kernel_size", (3, 3, 3)),))
    with pytest.raises(RegrowError, match="kernel_size of 0 is no size"):
        apply(model, edits)


def loads_as_before_or_is_refused(kind: str, content: bytes, folder: Path) -> None:
    (folder / EDITS).write_bytes(content)
    try:
        small = regrow.load_shrunk(fresh(kind, 99), folder)
    except RegrowError:
        return
    x = inputs(kind, 6)
    assert torch.equal(outputs(small, x), outputs(HALVED[kind][1].model, x))


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_may_be_another(kind: str, folder: Path, data: st.DataObject) -> None:
    """In one place, or in two; or a key is lost, or has another name."""
    regrow.save_shrunk(HALVED[kind][1], folder)
    content = json.loads((folder / EDITS).read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        paths = tree(content)[1:]
        path = paths[data.draw(st.integers(0, len(paths) - 1))]
        owner = content
        for key in path[:-1]:
            owner = owner[key]
        how = data.draw(st.sampled_from(["value", "value", "lose", "rename"]))
        if how == "value":
            owner[path[-1]] = data.draw(VALUES)
        elif how == "lose" or isinstance(owner, list):
            del owner[path[-1]]
        else:
            owner[data.draw(st.sampled_from(["x", "", "1", "-1", "9" * 30]))] = owner.pop(path[-1])
    loads_as_before_or_is_refused(kind, json.dumps(content).encode(), folder)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_byte_may_be_another(kind: str, folder: Path, data: st.DataObject) -> None:
    """Or the file ends early."""
    regrow.save_shrunk(HALVED[kind][1], folder)
    content = bytearray((folder / EDITS).read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.integers(0, 255))
    loads_as_before_or_is_refused(kind, bytes(content), folder)


def test_onnx_runtime_computes_the_smaller_network(kind: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from regrow.export.onnx import export_onnx

    small = HALVED[kind][1].model
    export_onnx(small, tmp_path / "net.onnx", inputs(kind), tolerance=1e-5)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"]
    )
    x = inputs(kind, 8, count=7)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = outputs(small, x)
    assert float((torch.from_numpy(found) - expected).abs().max()) <= 1e-5 * float(
        expected.abs().max()
    )
