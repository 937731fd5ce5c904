from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_example import Net, bits, same, trained
from torch import nn

import regrow
from regrow.core import files
from regrow.core.errors import RegrowError
from regrow.export import packed as packed_module
from regrow.export.container import Contents
from regrow.export.packed import load, save
from regrow.export.sections import Section

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(regrow.__file__).parents[1])}


def test_a_model_is_reloaded_in_a_fresh_process_to_the_bit(tmp_path: Path) -> None:
    model, keep = trained()
    path = tmp_path / "model.regrow"
    size = save(model, path, masks=keep, metadata={"epoch": 3})
    assert size == path.stat().st_size
    assert os.listdir(tmp_path) == ["model.regrow"]
    # Reading must not touch pickle at all: every way into it raises in the other process.
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pickle, _pickle
import torch
from packed_example import Net, bits
from regrow.export.container import Contents
from regrow.export.packed import load, unpack
def forbidden(*_, **__):
    raise AssertionError("pickle was used")
for module, names in ((pickle, "load loads Unpickler"), (_pickle, "load loads Unpickler"),
                      (torch, "load"), (torch.serialization, "load")):
    for name in names.split():
        setattr(module, name, forbidden)
torch.manual_seed(99)
torch.set_num_threads(1)
model = load(Net(), sys.argv[1]).eval()
assert unpack(sys.argv[1]).metadata["epoch"] == 3
x = torch.linspace(-2, 2, 2 * 3 * 64).view(2, 3, 8, 8)
print(bits(model(x)).hex())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = model(torch.linspace(-2, 2, 2 * 3 * 64).view(2, 3, 8, 8))
    finally:
        torch.set_num_threads(threads)
    assert done.stdout.strip() == bits(expected).hex()


def test_no_source_of_the_folder_reaches_for_pickle() -> None:
    for source in Path(packed_module.__file__).parent.glob("*.py"):
        if source.name == "tensors.py":  # writes PyTorch's own format, reads it weights_only
            continue
        # A module's own eval() is another thing than the built-in one.
        text = source.read_text().replace("without pickle", "").replace(".eval(", "")
        assert not any(word in text for word in ("pickle", "torch.load", "torch.save", "eval("))


def test_wrapped_and_channels_last_models(tmp_path: Path) -> None:
    model, keep = trained()
    plain, wrapped = tmp_path / "plain", tmp_path / "wrapped"
    save(model, plain, masks=keep)
    model = model.to(memory_format=torch.channels_last)
    save(torch.compile(nn.DataParallel(model), backend="eager"), wrapped, masks=keep)
    assert plain.read_bytes() == wrapped.read_bytes()
    fresh = Net().to(memory_format=torch.channels_last)
    outer = nn.DataParallel(fresh)
    assert load(outer, wrapped) is outer
    assert same(fresh.state_dict(), model.state_dict())
    assert fresh.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert fresh.head.weight is fresh.module.weight


class Renamed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.stem = self.conv
        del self.conv


class Extra(Net):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(1, 1)


class Fewer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm.num_batches_tracked = None


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Renamed, r"stem\.weight \(8, 3, 3, 3\) is missing"),
        (Extra, r"extra\.weight \(1, 1\) is missing"),
        (Fewer, r"holds norm\.num_batches_tracked"),
        (lambda: Net(width=9), r"conv\.weight has shape \(8, 3, 3, 3\) in the file and \(9,"),
        (lambda: Net().double(), r"conv\.weight is torch.float32 in the file and torch.float64"),
        (lambda: Net().to("meta"), r"conv\.weight has no values yet"),
    ],
    ids=["missing", "missing last", "unexpected", "shape", "dtype", "meta"],
)
def test_a_model_of_another_class_is_refused_untouched(
    tmp_path: Path, build: Any, reason: str
) -> None:
    path = tmp_path / "m.regrow"
    save(trained()[0], path)
    model = build()
    meta = next(model.parameters()).is_meta
    before = {} if meta else {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(RegrowError, match=reason):
        load(model, path)
    assert meta or same(model.state_dict(), before)


class Hooked(Net):
    """Its hook rejects the state after half of it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.head.register_load_state_dict_pre_hook(self.refuse)

    @staticmethod
    def refuse(*_: object) -> None:
        raise RuntimeError("this head loads nothing")


class Untied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head.weight = nn.Parameter(torch.ones(10, 8))


@pytest.mark.parametrize(
    ("saved", "build", "reason"),
    [
        (Net, Hooked, "this head loads nothing"),
        (Untied, Net, r"(head|module)\.weight cannot take its value.*shares memory"),
    ],
)
def test_a_load_that_fails_midway_is_undone(
    tmp_path: Path, saved: Any, build: Any, reason: str
) -> None:
    path = tmp_path / "m.regrow"
    save(saved(), path)
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RegrowError, match=reason):
        load(model, path)
    assert same(model.state_dict(), before)


def test_a_tied_file_loads_into_an_untied_model(tmp_path: Path) -> None:
    model, _ = trained()
    save(model, tmp_path / "m.regrow")
    assert same(load(Untied(), tmp_path / "m.regrow").state_dict(), model.state_dict())


def test_a_damaged_file_leaves_the_model_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.regrow"
    save(trained()[0], path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RegrowError, match=r"m\.regrow cannot be used: section '.*checksum"):
        load(model, path)
    assert same(model.state_dict(), before)
    path.write_bytes(pickle.dumps(before))
    with pytest.raises(RegrowError, match=r"m\.regrow is not a packed file"):
        load(model, path)


def test_saving_verifies_before_the_file_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.regrow"
    model, keep = trained()
    save(model, path, masks=keep)
    before = path.read_bytes()
    other = trained(seed=1)[0]
    encode = packed_module.encode

    def silently_wrong(contents: Contents) -> list[bytes]:
        first, *others = contents.sections
        wrong = Section(first.name, first.dtype, first.array + 1)
        return encode(Contents((wrong, *others), contents.aliases, contents.metadata))

    monkeypatch.setattr(packed_module, "encode", silently_wrong)
    with pytest.raises(RegrowError, match=r"m\.regrow was not written.*other values"):
        save(other, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.regrow"]


def test_a_full_disk_leaves_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.regrow"
    save(trained()[0], path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        RegrowError, match=r"m\.regrow cannot be written: No space.*free some space"
    ):
        save(trained(seed=1)[0], path)
    monkeypatch.undo()
    free = files.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: free)
    with pytest.raises(RegrowError, match="100 are free"):
        save(trained(seed=1)[0], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.regrow"]
