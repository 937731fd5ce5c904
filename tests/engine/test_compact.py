"""Cuts of large tensors, by pieces and in their own memory, against a choice of indices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regrow.engine import compact, surgery

SHAPES = st.sampled_from([(7,), (5, 6), (6, 5, 3), (9, 4, 2, 2)])


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Tensor, dict[int, Tensor]]:
    shape = draw(SHAPES)
    dims = {}
    for dim in draw(st.sets(st.integers(0, len(shape) - 1))):
        kept = draw(st.sets(st.integers(0, shape[dim] - 1), min_size=1))
        dims[dim] = torch.tensor(sorted(kept))
    return torch.randn(shape), dims


def chosen(tensor: Tensor, dims: dict[int, Tensor]) -> Tensor:
    for dim, indices in dims.items():
        tensor = tensor.index_select(dim, indices)
    return tensor


@settings(max_examples=60, deadline=None)
@given(cuts(), st.sampled_from([1, 4, 1000]), st.sampled_from([1, 10_000]))
def test_what_stays_is_what_was_chosen(
    made: tuple[Tensor, dict[int, Tensor]], piece: int, large: int
) -> None:
    tensor, dims = made
    expected = chosen(tensor, dims)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surgery, "_LARGE", large)
        patch.setattr(compact, "_PIECE", piece)
        assert torch.equal(surgery.cut(tensor, dims), expected)
        found = compact.compacted(tensor, dims)
    assert torch.equal(found, expected)
    assert found.is_contiguous()
    assert found.data_ptr() == tensor.data_ptr()
