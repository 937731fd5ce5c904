from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.core.maskset import MaskSet, pack_bits, unpack_bits

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def draw(shape: tuple[int, ...], seed: int, density: float = 0.4) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 999))
def test_bits_are_numpys_little_endian_ones_and_come_back(
    shape: tuple[int, ...], seed: int
) -> None:
    mask = draw(shape, seed)
    packed = pack_bits(mask)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-prod(shape) // 8)
    expected = np.packbits(mask.numpy().reshape(-1), bitorder="little")
    assert packed.numpy().tolist() == expected.tolist()
    assert torch.equal(unpack_bits(packed, shape), mask)


def test_packing_reads_the_logical_order_whatever_the_strides() -> None:
    mask = draw((5, 7), 0)
    assert torch.equal(pack_bits(mask.t()), pack_bits(mask.t().contiguous()))
    assert torch.equal(unpack_bits(pack_bits(mask.t()), (7, 5)), mask.t())


@settings(max_examples=30, deadline=None)
@given(SHAPES, SHAPES, st.integers(0, 99))
def test_a_set_is_the_masks_it_was_made_of(
    a: tuple[int, ...], b: tuple[int, ...], seed: int
) -> None:
    keep = {"a": draw(a, seed), "b": draw(b, seed + 1)}
    masks = MaskSet(keep)
    assert list(masks) == ["a", "b"]
    assert len(masks) == 2
    for name, mask in keep.items():
        assert masks[name].dtype == torch.bool
        assert torch.equal(masks[name], mask)
        assert torch.equal(masks.removed(name), ~mask)
    assert masks.kept == {n: int(m.sum()) for n, m in keep.items()}
    assert masks.total == {"a": prod(a), "b": prod(b)}
    assert masks.nbytes == sum(-(-prod(s) // 8) for s in (a, b))


def test_replacing_leaves_the_old_set_as_it_was() -> None:
    old = MaskSet({"a": draw((3, 4), 0), "b": draw((5,), 1)})
    before, checksum = old["a"].clone(), old.checksum()
    new = old.replaced({"a": torch.ones(3, 4, dtype=torch.bool)})
    assert torch.equal(old["a"], before)
    assert old.checksum() == checksum != new.checksum()
    assert new["a"].all()
    assert torch.equal(new["b"], old["b"])
    assert new.kept == {"a": 12, "b": old.kept["b"]}
    assert list(new) == ["a", "b"]


def test_what_is_read_is_no_view_of_what_is_stored() -> None:
    masks = MaskSet({"a": draw((3, 4), 0)})
    checksum = masks.checksum()
    masks["a"].fill_(True)
    masks.removed("a").fill_(True)
    masks.state_dict()["a"].fill_(0)
    assert masks.checksum() == checksum


def test_a_checksum_tells_names_shapes_and_bits_apart() -> None:
    mask = torch.tensor([True, False, True, False])
    sums = {
        MaskSet(keep).checksum()
        for keep in (
            {"a": mask},
            {"b": mask},
            {"a": mask.view(2, 2)},
            {"a": ~mask},
            {"a": mask, "b": mask},
        )
    }
    assert len(sums) == 5
    assert (
        MaskSet({"a": mask, "b": ~mask}).checksum() == MaskSet({"b": ~mask, "a": mask}).checksum()
    )


def test_a_state_comes_back() -> None:
    weights = {"a": torch.zeros(3, 7), "b": torch.zeros(2, 2, 3, 3)}
    masks = MaskSet({n: draw(tuple(w.shape), 3) for n, w in weights.items()})
    again = MaskSet.from_state(masks.state_dict(), weights)
    assert again.checksum() == masks.checksum()
    assert again.kept == masks.kept


def test_a_state_of_another_model_is_refused() -> None:
    state = MaskSet({"a": draw((3, 7), 0)}).state_dict()
    with pytest.raises(RegrowError, match="only the model has weight 'b'"):
        MaskSet.from_state(state, {"a": torch.zeros(3, 7), "b": torch.zeros(2)})
    with pytest.raises(RegrowError, match="only the checkpoint has weight 'a'"):
        MaskSet.from_state(state, {})
    with pytest.raises(RegrowError, match=r"a of shape \(5, 7\) needs 5 bytes.*has 3"):
        MaskSet.from_state(state, {"a": torch.zeros(5, 7)})
    with pytest.raises(RegrowError, match="another model"):
        MaskSet.from_state({"a": state["a"].float()}, {"a": torch.zeros(3, 7)})


@settings(max_examples=30, deadline=None)
@given(SHAPES, SHAPES, st.integers(0, 99))
def test_a_union_is_what_either_keeps(a: tuple[int, ...], b: tuple[int, ...], seed: int) -> None:
    one, other = ({"a": draw(a, s), "b": draw(b, s + 1)} for s in (seed, seed + 7))
    union = MaskSet(one) | MaskSet(other)
    assert all(torch.equal(union[name], one[name] | other[name]) for name in one)
    assert union.kept == {name: int((one[name] | other[name]).sum()) for name in one}
    assert union.checksum() == MaskSet({n: one[n] | other[n] for n in one}).checksum()
