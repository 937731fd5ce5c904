"""Budgets in the user's terms, met to the unit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regrow
from regrow.bench.models import digits_cnn, resnet20
from regrow.core.errors import RegrowError

X = torch.randn(1, 1, 8, 8)
NET = digits_cnn(generator=torch.Generator().manual_seed(0))
GROUPS = regrow.groups(NET, X)


def measured(keep: dict[str, torch.Tensor], of: str) -> int:
    if of == "macs":
        return GROUPS.macs(keep)
    if of == "parameters":
        return GROUPS.parameters(keep)
    return sum(int(mask.sum()) for mask in keep.values())


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0, 0.8),
    st.sampled_from(["units", "parameters", "macs"]),
    st.sampled_from(["global", "local", "isomorphic"]),
    st.sampled_from([1, 4, 8]),
    st.sampled_from(["norm", "random", "geometric_median"]),
)
def test_met_and_no_step_more(
    sparsity: float, of: str, scope: str, round_to: int, criterion: str
) -> None:
    options = {"of": of, "scope": scope, "round_to": round_to, "criterion": criterion}
    keep = regrow.choose(NET, GROUPS, sparsity, **options)
    whole = measured({name: torch.ones_like(mask) for name, mask in keep.items()}, of)
    left = measured(keep, of)
    assert left <= whole * (1 - sparsity) + 1e-6 * whole
    assert all(int(mask.sum()) % round_to == 0 for mask in keep.values())
    if left < whole:  # One step less removes too little: no group can take back its last one.
        step = round_to
        less = []
        for name, mask in keep.items():
            if int(mask.sum()) < len(mask):
                back = mask.clone()
                back[(~mask).nonzero().flatten()[:step]] = True
                less.append(measured({**keep, name: back}, of))
        assert max(less) > whole * (1 - sparsity)


def test_counts_are_those_of_the_smaller_network() -> None:
    keep = regrow.choose(NET, GROUPS, 0.6, of="macs")
    small = regrow.shrink(NET, X, keep, groups=GROUPS).model
    assert sum(p.numel() for p in small.parameters()) == GROUPS.parameters(keep)
    assert regrow.groups(small, X).macs() == GROUPS.macs(keep)
    assert regrow.inspect(small, example=X).macs() == GROUPS.macs(keep)


def test_local_takes_from_all_alike() -> None:
    keep = regrow.choose(NET, GROUPS, 0.5, scope="local")
    assert all(abs(float(mask.float().mean()) - 0.5) <= 1 / len(mask) for mask in keep.values())


def test_global_takes_the_least() -> None:
    keep = regrow.choose(NET, GROUPS, 0.25, normalisation="none")
    weights = dict(NET.named_parameters())
    norms = torch.cat(
        [
            torch.stack(
                [
                    sum(
                        weights[m.name].detach().movedim(m.dim, 0)[m.indices[i]].square().sum()
                        for m in group.members
                        if m.name in weights
                    )
                    for i in range(len(group))
                ]
            )
            for group in GROUPS
        ]
    )
    mask = torch.cat(list(keep.values()))
    assert norms[mask].min() >= norms[~mask].max()


def test_isomorphic_pools_like_layers() -> None:
    net = resnet20(generator=torch.Generator().manual_seed(0))
    groups = regrow.groups(net, torch.randn(1, 3, 32, 32))
    keep = regrow.choose(net, groups, 0.5, scope="isomorphic")
    assert sum(int(m.sum()) for m in keep.values()) == sum(map(len, groups)) // 2


def test_what_cannot_be_reached_is_said() -> None:
    with pytest.raises(RegrowError, match=r"cannot be reached: with all floors 0\.\d{4} are"):
        regrow.choose(NET, GROUPS, 0.99, of="macs", floor=16)
    with pytest.raises(RegrowError, match="budget"):
        regrow.choose(NET, GROUPS, 0.5, of="flops")
    with pytest.raises(RegrowError, match="scope"):
        regrow.choose(NET, GROUPS, 0.5, scope="world")
    with pytest.raises(RegrowError, match="round_to"):
        regrow.choose(NET, GROUPS, 0.5, round_to=0)
    with pytest.raises(RegrowError, match="loss_fn and data"):
        regrow.choose(NET, GROUPS, 0.5, criterion="taylor")
    with pytest.raises(RegrowError, match="fraction removed"):
        regrow.choose(NET, GROUPS, 50)


def test_masks_of_weights_say_which_units_are_empty() -> None:
    keep = regrow.choose(NET, GROUPS, 0.5)
    masked = regrow.masked(NET, keep, groups=GROUPS)
    masks = {name: p.detach() != 0 for name, p in masked.named_parameters() if p.dim() > 1}
    small = regrow.shrink(NET, X, masks, groups=GROUPS).model
    assert sum(p.numel() for p in small.parameters()) == GROUPS.parameters(keep)
    with pytest.raises(RegrowError, match=r"mask of conv1\.weight has shape"):
        regrow.shrink(NET, X, {"conv1.weight": torch.ones(3)}, groups=GROUPS)


def test_excluded_layers_stay_whole() -> None:
    groups = regrow.groups(NET, X, exclude=["conv*"])
    assert [group.name for group in groups] == ["hidden"]
    assert {bound.layer for bound in groups.bound if bound.reason == "excluded"} == {
        "conv1",
        "conv2",
        "conv3",
    }
    with pytest.raises(RegrowError, match="unknown layer"):
        regrow.groups(NET, X, exclude=["cnv*"])


def test_the_table_of_groups() -> None:
    lines = str(GROUPS).splitlines()
    assert lines[0].split() == ["group", "units", "parameters", "MACs", "whole", "members"]
    assert "hidden.weight:1 x4" in next(line for line in lines if line.startswith("conv3"))
    assert "bound: an output of the network" in next(x for x in lines if x.startswith("classifier"))
    one = {"conv1": torch.arange(32) > 0}
    row = next(row for row in GROUPS.rows() if row["group"] == "conv1")
    assert row["parameters"] == GROUPS.parameters() - GROUPS.parameters(one)
    assert row["macs"] == GROUPS.macs() - GROUPS.macs(one)
    assert str(regrow.groups(torch.nn.Flatten(), X)).splitlines()[0].startswith("group")
