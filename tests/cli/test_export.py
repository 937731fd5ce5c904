"""`regrow export`: a run's arms and a packed file, in three formats, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch
from blobs_example import BIDIRECTIONAL, call, read, refused
from safetensors.torch import load_file

from regrow.bench.tasks import find_task
from regrow.core import files
from regrow.export.packed import pack, unpack

KEYS = {"format", "bytes", "dense_fp32_bytes", "nonzeros", "weights", "sparsity", "note"}
PARAMETERS = 12 * 32 + 32 + 2 * 32 + 32 * 3 + 3


@pytest.fixture
def run(blobs: str, quick: None) -> Path:
    assert call("run", *BIDIRECTIONAL, "--task", blobs, "--out", "[bold]run").code == 0
    return Path("[bold]run")  # rich would take it for markup


def test_a_run_as_onnx_agrees_with_torch_on_validation_data(run: Path, blobs: str) -> None:
    for arm, options in (("bidirectional_paper", ()), ("dense", ("--arm", "dense"))):
        found = call("export", run, "--format", "onnx", "-o", f"{arm}.onnx", "--json", *options)
        assert (found.code, found.err) == (0, "")
        told, record = found.json(), read(run)["arms"][arm]
        assert set(told) == KEYS | {"max_abs_diff"}
        # Weights that came back just before the best epoch are kept, and may be zero still.
        assert told["nonzeros"] <= record["kept"]
        assert (told["sparsity"], told["weights"]) == (record["sparsity"], record["total"])
        assert told["bytes"] == Path(f"{arm}.onnx").stat().st_size
        assert told["dense_fp32_bytes"] == 4 * PARAMETERS
        assert 0 <= told["max_abs_diff"] < 1e-4
        assert "opset 18" in told["note"]
        zeros = "regrow pack" if told["nonzeros"] < told["weights"] else "there are no zeros"
        assert zeros in told["note"]
        # An oracle of its own: the accuracy that the run recorded of this arm.
        part = find_task(blobs).splits(None).validation
        session = onnxruntime.InferenceSession(f"{arm}.onnx", providers=["CPUExecutionProvider"])
        (outputs,) = session.run(None, {session.get_inputs()[0].name: part.images.numpy()})
        right = float((outputs.argmax(1) == part.labels.numpy()).mean())
        assert right == pytest.approx(record["validation_accuracy"], abs=1e-9)
    assert {p.name for p in Path().iterdir() if p.suffix == ".onnx"} == {
        *("bidirectional_paper.onnx", "dense.onnx")
    }


@pytest.mark.parametrize("to", ["safetensors", "torch"])
def test_tensors_of_a_run_and_of_a_packed_file(to: str, run: Path) -> None:
    for number, (source, arm) in enumerate(
        [
            ((run,), run / "model.regrow"),
            ((run / "model.regrow",), run / "model.regrow"),
            ((run, "--arm", "one_way"), run / "state" / "one_way.regrow"),
        ]
    ):
        out = Path(f"{number}.out")
        found = call("export", *source, "--format", to, "-o", out, "--json")
        assert (found.code, found.err) == (0, "")
        told = found.json()
        assert set(told) == KEYS
        assert (told["format"], told["bytes"]) == (to, out.stat().st_size)
        assert told["dense_fp32_bytes"] == 4 * PARAMETERS
        state = load_file(out) if to == "safetensors" else torch.load(out, weights_only=True)
        expected = unpack(arm).state
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
        weights = [state["0.weight"], state["4.weight"]]
        assert told["weights"] == sum(w.numel() for w in weights) == 480
        assert told["nonzeros"] == sum(int((w != 0).sum()) for w in weights)
        name = "one_way" if "--arm" in source else "bidirectional_paper"
        assert told["sparsity"] == read(run)["arms"][name]["sparsity"]


def test_what_is_printed_and_what_inspect_says_of_the_file(run: Path) -> None:
    done = call("export", run, "--format", "safetensors", "-o", "[b].safetensors")
    assert (done.code, done.err) == (0, "")
    arm = read(run)["arms"]["bidirectional_paper"]
    for words in (
        "[b].safetensors",
        f"{Path('[b].safetensors').stat().st_size:,} bytes; {4 * PARAMETERS:,} as dense fp32",
        f"sparsity: {arm['sparsity']:.4f}",
        "zeros in full",
        "`regrow pack`",
    ):
        assert words in done.out
    counts = call("inspect", "[b].safetensors", "--json").json()
    assert (counts["kept"], counts["total"]) == (arm["kept"], arm["total"])


def test_what_cannot_be_exported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_out = ("--format", "torch", "-o", "x")
    before = sorted(os.listdir())
    assert "unknown format 'onx'. Did you mean 'onnx'?" in refused(
        *("export", run, "--format", "onx", "-o", "x")
    )
    assert "unknown arm 'dens'. Did you mean 'dense'?" in refused(
        *("export", run, *torch_out, "--arm", "dens")
    )
    assert "unknown arm '../model'" in refused("export", run, *torch_out, "--arm", "../model")
    assert "there is no nosuch" in refused("export", "nosuch", *torch_out)
    assert "--arm belongs to a run" in refused(
        *("export", run / "model.regrow", *torch_out, "--arm", "dense")
    )
    assert "ONNX needs the network itself" in refused(
        *("export", run / "model.regrow", "--format", "onnx", "-o", "x")
    )
    assert "recipe.toml" in refused("export", run / "recipe.toml", *torch_out)
    assert "is a folder" in refused("export", run, "--format", "torch", "-o", ".")
    assert "create it first" in refused("export", run, "--format", "torch", "-o", "nosuch/x")
    with monkeypatch.context() as patch:
        free = files.shutil.disk_usage(".")._replace(free=100)
        patch.setattr(files.shutil, "disk_usage", lambda _: free)
        assert "100 are free" in refused("export", run, *torch_out)
    assert sorted(os.listdir()) == before
    Path("empty").mkdir()
    assert "empty holds no run" in refused("export", "empty", *torch_out)
    Path("bare.regrow").write_bytes(pack({"a": torch.eye(2)}))
    assert "does not tell its weights" in refused("export", "bare.regrow", *torch_out)


def test_a_run_is_never_written_over(run: Path) -> None:
    whole = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for path in whole:
        for source in (run, run / "model.regrow"):
            if source == run or path == source:
                message = refused("export", source, "--format", "torch", "-o", path)
                assert "choose another name" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == whole
    assert call("export", run, "--format", "torch", "-o", run / "model.pt").code == 0


def test_a_run_that_is_not_finished_or_not_whole(run: Path) -> None:
    torch_out = ("--format", "torch", "-o", "x")
    shutil.copytree(run, "part")
    Path("part/state/dense.regrow").unlink()
    assert "dense.regrow" in refused("export", "part", *torch_out, "--arm", "dense")
    shutil.copy(run / "state" / "dense.regrow", "part/model.regrow")
    whole = Path("part/model.regrow").read_bytes()
    Path("part/model.regrow").write_bytes(whole[:-1])
    assert "model.regrow" in refused("export", "part", *torch_out)
    Path("part/record.json").write_text("{")
    assert "record.json" in refused("export", "part", *torch_out)
    Path("part/record.json").unlink()
    assert "part is not finished; go on with `regrow resume part`" in refused(
        *("export", "part", *torch_out)
    )


def test_a_task_whose_network_has_changed(run: Path, blobs: str) -> None:
    module = Path(blobs.partition(":")[0] + ".py")
    recipe = run / "recipe.toml"
    other = (
        module.read_text()
        .replace("12, 32", "12, 48")
        .replace("m1d(32", "m1d(48")
        .replace("r(32", "r(48")
    )
    Path("other_blobs.py").write_text(other)
    recipe.write_text(recipe.read_text().replace(blobs, "other_blobs:task"))
    message = refused("export", run, "--format", "onnx", "-o", "x")
    assert "does not fit the model: 0.weight has shape (32, 12) in the file" in message
