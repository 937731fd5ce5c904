"""safetensors and torch files: what their own libraries read, and what is refused."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_example import Net, bits, same, trained
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from regrow.core import files
from regrow.core.errors import RegrowError
from regrow.export import tensors as module
from regrow.export.exported import Exported
from regrow.export.packed import Packed, pack, save, unpack
from regrow.export.semi_structured import to_semi_structured
from regrow.export.tensors import export_safetensors, export_torch
from regrow.model.inspection import inspect

Export = Callable[..., Exported]
both = pytest.mark.parametrize("export", [export_safetensors, export_torch])


def read(path: Path, export: Export) -> dict[str, Tensor]:
    return load_file(path) if export is export_safetensors else torch.load(path, weights_only=True)


@both
def test_a_fresh_model_loads_the_file_to_the_bit(export: Export, tmp_path: Path) -> None:
    model, keep = trained()
    path = tmp_path / "model"
    told = export(nn.DataParallel(torch.compile(model, backend="eager")), path)
    fresh = Net()
    assert not fresh.load_state_dict(read(path, export), strict=True).missing_keys
    assert same(fresh.state_dict(), model.state_dict())
    assert fresh.head.weight is fresh.module.weight
    assert os.listdir(tmp_path) == ["model"]
    counts = inspect(model)
    kept = sum(int(keep[name].sum()) for name in ("conv.weight", "module.weight"))
    assert (told.bytes, told.nonzeros, told.weights) == (path.stat().st_size, kept, 296)
    assert told.sparsity == counts.sparsity
    assert told.dense_fp32_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert set(told.to_dict()) == {
        *("format", "bytes", "dense_fp32_bytes", "nonzeros", "weights", "sparsity", "note")
    }
    assert "zeros in full" in told.note
    assert "regrow pack" in told.note


@both
def test_a_packed_file_gives_what_its_model_gives(export: Export, tmp_path: Path) -> None:
    model, keep = trained()
    with torch.no_grad():  # a kept weight of value zero
        model.conv.weight.view(-1)[int(keep["conv.weight"].view(-1).nonzero()[0])] = 0
    save(model, tmp_path / "model.regrow", masks=keep)
    packed = unpack(tmp_path / "model.regrow")
    counts = packed.metadata["inspection"]
    told = export(packed, tmp_path / "from file")
    assert told == export(model, tmp_path / "from model", masks=keep)
    assert same(read(tmp_path / "from file", export), dict(model.state_dict()))
    assert (told.nonzeros, told.weights) == (counts["kept"] - 1, counts["total"])
    assert told.sparsity == counts["sparsity"] == 1 - counts["kept"] / counts["total"]


def test_the_notes_of_safetensors(tmp_path: Path) -> None:
    model, _ = trained()
    path = tmp_path / "m.safetensors"
    told = export_safetensors(model, path)
    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
    assert sorted(notes) == ["format", "regrow", "sparsity", "tied", "zeros"]
    assert notes["format"] == "pt"
    assert json.loads(notes["regrow"]) == json.loads(json.dumps(inspect(model).to_dict()))
    assert float(notes["sparsity"]) == told.sparsity
    assert json.loads(notes["tied"]) == {"head.weight": "module.weight"}
    assert "1 tied names are stored again" in told.note


@both
def test_equal_models_give_equal_files(export: Export, tmp_path: Path) -> None:
    for name in "abcd":
        export(trained()[0], tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_tied_weights_stay_tied_in_a_torch_file(tmp_path: Path) -> None:
    told = export_torch(trained()[0], tmp_path / "m.pt")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    assert type(state) is dict
    assert state["head.weight"].data_ptr() == state["module.weight"].data_ptr()
    assert "tied" not in told.note


class Odd(nn.Module):
    """Buffers of a dtype and a shape, that share memory in several ways."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> None:
        super().__init__()
        self.line = nn.Linear(3, 2)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(-9, 9, (2, *shape), generator=generator)
        whole = (drawn * torch.pi).to(dtype)
        self.register_buffer("whole", whole)
        self.register_buffer("part", whole[1])
        self.register_buffer("turned", whole.transpose(0, -1))
        self.register_buffer("flat", whole.view(-1))
        self.register_buffer("again", whole[1])


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(
        [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    ),
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    seed=st.integers(0, 99),
)
def test_any_dtype_shape_and_sharing(
    dtype: torch.dtype,
    shape: tuple[int, ...],
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model, path = Odd(dtype, shape, seed), tmp_path_factory.getbasetemp() / "odd"
    for export in (export_safetensors, export_torch):
        export(model, path)
        found = read(path, export)
        assert same(found, dict(model.state_dict()))


def test_a_view_is_saved_without_what_it_is_part_of(tmp_path: Path) -> None:
    model = nn.Linear(4, 4, bias=False)
    model.weight = nn.Parameter(torch.randn(1000, 4)[7:11])
    assert export_torch(model, tmp_path / "m.pt").bytes < 4_000
    assert torch.equal(torch.load(tmp_path / "m.pt", weights_only=True)["weight"], model.weight)


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 3}

    def set_extra_state(self, state: Any) -> None: ...


def double_complex() -> nn.Module:
    model = nn.Linear(2, 2)
    model.register_buffer("q", torch.zeros(2, dtype=torch.complex128))
    return model


def sparse() -> nn.Module:
    model = nn.Linear(2, 2)
    model.register_buffer("s", torch.eye(2).to_sparse())
    return model


@both
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Extra(2, 2), "_extra_state is a dict; only tensors can be exported"),
        (lambda: nn.Linear(2, 2).to("meta"), "weight has no values yet"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d()), r"1\.weight has no values"),
        (double_complex, r"q is a torch.strided Tensor of torch.complex128"),
        (sparse, r"s is a torch.sparse_coo Tensor"),
        (nn.ReLU, "has no convolution or linear weights"),
    ],
    ids=["extra state", "meta", "lazy", "complex", "sparse", "nothing"],
)
def test_what_cannot_be_exported(
    build: Callable[[], nn.Module], reason: str, export: Export, tmp_path: Path
) -> None:
    model = build()
    with pytest.raises(RegrowError, match=reason):
        export(model, tmp_path / "m")
    assert not os.listdir(tmp_path)


SOUND = {"layers": [{"name": "a"}], "parameters": 4, "sparsity": 0.5}


@both
@pytest.mark.parametrize(
    "counts",
    [
        *(None, 3, [], {}, *({**SOUND, "layers": x} for x in (3, [], [3], [{"name": "b"}]))),
        *({**SOUND, "parameters": "9"}, {**SOUND, "sparsity": None}),
    ],
)
def test_a_packed_file_that_does_not_tell_its_weights(
    counts: Any, export: Export, tmp_path: Path
) -> None:
    (tmp_path / "m.regrow").write_bytes(pack({"a": torch.eye(2)}, metadata={"inspection": counts}))
    with pytest.raises(RegrowError, match="does not tell its weights"):
        export(unpack(tmp_path / "m.regrow"), tmp_path / "m")


def test_a_name_that_safetensors_keeps_for_itself(tmp_path: Path) -> None:
    state = {"a": torch.eye(2), "__metadata__": torch.eye(2)}
    with pytest.raises(RegrowError, match="m was not written"):
        export_safetensors(Packed(state, {}, {"inspection": SOUND}), tmp_path / "m")
    assert not os.listdir(tmp_path)


def one_bit(content: bytes, weight: bytes) -> bytes:
    at = content.index(weight)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def half(content: bytes, _: bytes) -> bytes:
    return content[: len(content) // 2]


@both
@pytest.mark.parametrize("damage", [one_bit, half])
def test_another_value_read_back_keeps_the_previous_file(
    damage: Any, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"before")
    model, _ = trained()
    bias = bits(model.head.bias)
    write = module.write_atomic

    def damaged(path: Path, content: Iterable[bytes], check: Any) -> int:
        return write(path, damage(b"".join(content), bias), check=check)

    monkeypatch.setattr(module, "write_atomic", damaged)
    with pytest.raises(RegrowError, match=r"m was not written: reading it back gave other values"):
        export(model, path)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["m"]


@both
def test_targets_that_cannot_be_written(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = trained()
    with pytest.raises(RegrowError, match="is a folder; give the name of a file"):
        export(model, tmp_path)
    with pytest.raises(RegrowError, match=r"no folder .*nosuch; create it first"):
        export(model, tmp_path / "nosuch" / "m")
    free = files.shutil.disk_usage(tmp_path)._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "disk_usage", lambda _: free)
        with pytest.raises(RegrowError, match="100 are free"):
            export(model, tmp_path / "m")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RegrowError, match=r"m cannot be written: No space.*free some space"):
        export(model, tmp_path / "m")
    assert not os.listdir(tmp_path)


def two_of_four(rows: int, columns: int, dtype: torch.dtype) -> tuple[nn.Module, dict[str, Tensor]]:
    """A linear layer of which the first two of every four inputs are kept, and one more."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(columns, rows), nn.ReLU(), nn.Linear(rows, 3)).to(dtype)
    mask = torch.zeros(rows, columns, dtype=torch.bool).unflatten(1, (-1, 4))
    mask[..., :2] = True
    mask = mask.flatten(1)
    with torch.no_grad():
        model[0].weight.mul_(mask)
    return model, {"0.weight": mask, "2.weight": torch.ones(3, rows, dtype=torch.bool)}


def dense_entry(model: nn.Module, masks: dict[str, Tensor]) -> None:
    masks["0.weight"][5, 2] = True


def dirty(model: nn.Module, masks: dict[str, Tensor]) -> None:
    model[0].weight.data[5, 3] = 1


def other_shape(model: nn.Module, masks: dict[str, Tensor]) -> None:
    masks["0.weight"] = masks["0.weight"].T


def full(model: nn.Module, masks: dict[str, Tensor]) -> None:
    del masks["0.weight"]


def another(model: nn.Module, masks: dict[str, Tensor]) -> None:
    masks["1.weight"] = masks["0.weight"]


def convolution(model: nn.Module, masks: dict[str, Tensor]) -> None:
    model[1] = nn.Conv2d(4, 4, 3)
    masks["1.weight"] = torch.zeros(4, 4, 3, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("change", "rows", "dtype", "reason"),
    [
        (None, 64, torch.float16, "0.weight cannot be semi-structured: it is on 'cpu'"),
        (None, 64, torch.float32, r"0.weight cannot .*: it is torch.float32; convert .*\.half"),
        (None, 48, torch.float16, r"0.weight cannot .*: its shape \(48, 128\) is no multiple of"),
        (dense_entry, 64, torch.float16, "0.weight cannot .*: its mask keeps more than 2 of 4"),
        (dirty, 64, torch.float16, "0.weight cannot .* are not zero"),
        (other_shape, 64, torch.float16, r"its mask is torch.bool of shape \(128, 64\)"),
        (another, 64, torch.float16, r"unknown weight for a keep mask '1\.weight'"),
        (convolution, 64, torch.float16, "1.weight cannot .* belongs to a Conv2d"),
        (full, 64, torch.float16, "no mask removes anything"),
    ],
    ids=[
        *("device", "dtype", "shape", "pattern", "values", "mask", "name", "convolution", "dense")
    ],
)
def test_what_cannot_be_semi_structured(
    change: Any, rows: int, dtype: torch.dtype, reason: str
) -> None:
    model, masks = two_of_four(rows, 128, dtype)
    if change is not None:
        change(model, masks)
    with pytest.raises(RegrowError, match=reason):
        to_semi_structured(model, dict(reversed(masks.items())))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_semi_structured_copy_computes_the_same(dtype: torch.dtype) -> None:
    model, masks = two_of_four(64, 128, dtype)
    model = model.cuda()
    before = bits(model[0].weight.cpu())
    copy = to_semi_structured(model, masks)
    x = torch.randn(16, 128, dtype=dtype, device="cuda")
    with torch.no_grad():
        torch.testing.assert_close(copy(x), model(x), rtol=1e-2, atol=1e-2)
    assert type(copy[0].weight.data) is not Tensor
    assert type(model[0].weight.data) is Tensor
    assert bits(model[0].weight.cpu()) == before
