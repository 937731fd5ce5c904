from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_example import INTEGERS, bits, same
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.export import packed as packed_module
from regrow.export.packed import pack, unpack

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


def through_file(folder: Path, state: dict[str, Tensor], **rest: Any) -> packed_module.Packed:
    path = folder / "x.regrow"
    path.write_bytes(pack(state, **rest))
    return unpack(path)


SPECIAL = {
    torch.float64: [0x7FF0000000000001, -0x8000000000000000, 0x7FF0000000000000, 1, 0],
    torch.float32: [0x7F800001, -0x00000123, -0x80000000, 0x7F800000, 1, 0],
    torch.float16: [0x7C01, -0x8000, 0x7C00, 1, 0],
    torch.bfloat16: [0x7F81, -0x8000, 0x7F80, 1, 0],
}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    seed = draw(st.integers(0, 2**32 - 1))
    density = draw(st.sampled_from([0.0, 0.03, 0.5, 1.0]))
    generator = np.random.default_rng(seed)
    width = torch.empty((), dtype=dtype).element_size()
    numel = int(np.prod(shape))
    if dtype == torch.bool:
        raw = generator.integers(0, 2, numel, dtype=np.uint8)
    else:
        raw = np.frombuffer(generator.bytes(numel * width), np.uint8).copy()
    values = torch.from_numpy(raw.view(np.uint8 if width == 1 else f"i{width}"))
    if dtype in SPECIAL and numel and draw(st.booleans()):
        values = torch.tensor(SPECIAL[dtype], dtype=INTEGERS[width]).repeat(numel)[:numel]
    removed = torch.from_numpy(generator.random(numel) >= density)
    tensor = values.masked_fill(removed, 0).view(dtype).reshape(shape)
    if tensor.dim() == 4 and draw(st.booleans()):
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    if tensor.dim() == 2 and draw(st.booleans()):
        tensor = tensor.t()
    return tensor


@given(st.dictionaries(st.text("ab.é", min_size=1, max_size=4), tensors(), max_size=4))
@settings(max_examples=120, deadline=None)
def test_any_state_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]
) -> None:
    back = through_file(tmp_path_factory.getbasetemp(), state, metadata={"a": [1, "é", None]})
    assert same(back.state, state)
    assert back.metadata == {"a": [1, "é", None]}
    for name, keep in back.keep.items():
        nonzero = np.frombuffer(bits(state[name]), f"u{state[name].element_size()}") != 0
        assert keep.flatten().tolist() == nonzero.tolist()
    assert pack(state) == pack(dict(reversed(state.items())))


def test_special_values_of_every_float(tmp_path: Path) -> None:
    state = {
        str(dtype): torch.tensor(values, dtype=INTEGERS[dtype.itemsize]).view(dtype)
        for dtype, values in SPECIAL.items()
    }
    assert all(tensor.isnan().any() and tensor.isinf().any() for tensor in state.values())
    assert same(through_file(tmp_path, state).state, state)
    spread = {name: torch.cat([t, torch.zeros(500, dtype=t.dtype)]) for name, t in state.items()}
    back = through_file(tmp_path, spread)
    assert same(back.state, spread)
    assert all(bool(back.keep[name][:4].all()) for name in spread)  # -0.0 and denormals are kept


def test_a_sparse_tensor_takes_the_size_of_the_formula(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 401, generator=generator)
    weight[torch.rand(300, 401, generator=generator) < 0.97] = 0.0
    data = pack({"w": weight})
    header = int.from_bytes(data[24:32], "little")
    numel, kept = weight.numel(), int(weight.count_nonzero())
    assert len(data) == -(-(48 + header) // 64) * 64 + -(-numel // 8) + 4 * kept
    assert len(data) < 0.07 * 4 * numel
    assert same(through_file(tmp_path, {"w": weight}).state, {"w": weight})


def test_a_kept_zero_stays_kept_and_a_removed_value_is_an_error(tmp_path: Path) -> None:
    weight = torch.tensor([[0.0, 2.0], [0.0, -3.0]])
    keep = torch.tensor([[True, True], [False, True]])
    back = through_file(tmp_path, {"w": weight}, keep={"w": keep})
    assert torch.equal(back.keep["w"], keep)
    assert torch.equal(back.state["w"], weight)
    everything = torch.ones(2, 2, dtype=torch.bool)
    assert through_file(tmp_path, {"w": weight}, keep={"w": everything}).keep["w"].all()
    for value in (-0.0, 1.0, float("nan")):
        weight[1, 0] = value
        with pytest.raises(RegrowError, match=r"'w': 1 removed entries .* flat index 2"):
            pack({"w": weight}, {"w": keep})


def test_masks_that_do_not_fit() -> None:
    state = {"conv.weight": torch.zeros(2, 3)}
    with pytest.raises(RegrowError, match=r"'conv\.wieght'.*Did you mean 'conv\.weight'"):
        pack(state, {"conv.wieght": torch.ones(2, 3, dtype=torch.bool)})
    with pytest.raises(RegrowError, match=r"conv\.weight.*shape \(3, 2\)"):
        pack(state, {"conv.weight": torch.ones(3, 2, dtype=torch.bool)})
    with pytest.raises(RegrowError, match=r"conv\.weight.*float32"):
        pack(state, {"conv.weight": torch.ones(2, 3)})


def test_tied_tensors_are_stored_once(tmp_path: Path) -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    weight[:32] = 0
    keep = weight != 0
    tied = {"b": weight, "a": weight.view(64, 64)}
    assert len(pack(tied)) < len(pack({"a": weight})) + 64
    assert len(pack({"a": weight, "b": weight.clone()})) > 1.9 * len(pack(tied))
    back = through_file(tmp_path, tied, keep={"b": keep})
    assert same(back.state, tied)
    assert back.state["a"] is back.state["b"]
    assert torch.equal(back.keep["a"], keep)
    assert torch.equal(back.keep["b"], keep)
    other = keep.clone()
    other[0, 0] = True
    with pytest.raises(RegrowError, match="a and b are one tensor"):
        pack(tied, {"a": keep, "b": other})


def test_views_that_only_overlap_are_stored_apart(tmp_path: Path) -> None:
    whole = torch.arange(1.0, 17.0).view(4, 4)
    state = {"whole": whole, "rows": whole[:2], "turned": whole.t(), "none": whole[:0]}
    state["no more"] = whole[:0]
    back = through_file(tmp_path, state)
    assert same(back.state, state)
    assert len({tensor.data_ptr() for tensor in back.state.values() if tensor.numel()}) == 3


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "w is a int; only tensors"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.eye(2).to_sparse(), "sparse_coo"),
        (torch.zeros(2, device="meta"), "no values yet"),
        (nn.UninitializedParameter(), "no values yet"),
    ],
    ids=["integer", "complex", "sparse", "meta", "lazy"],
)
def test_what_cannot_be_packed(value: Any, reason: str) -> None:
    with pytest.raises(RegrowError, match=reason):
        pack({"w": value})
