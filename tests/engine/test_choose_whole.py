"""Which groups leave whole: budgets, order, and programs that let them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structured_blocks import Kind, built, images
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import regrow
from regrow import recipes
from regrow.bench.models import resnet20
from regrow.core.errors import RegrowError
from regrow.engine.latency import LatencyTable, kept_shares
from regrow.engine.program import Program

X = images()
NET = built(
    (
        Kind("post", True, True, 3),
        Kind("bottleneck", True, False, 4),
        Kind("gated", True, True, 5),
        Kind("post", True, True, 3),
    )
)
GROUPS = regrow.groups(NET, X)


def left(keep: dict[str, Tensor], of: str) -> int:
    if of == "units":
        return sum(int(mask.sum()) for mask in keep.values())
    return GROUPS.macs(keep) if of == "macs" else GROUPS.parameters(keep)


def gone(keep: dict[str, Tensor]) -> list[str]:
    return [name for name, mask in keep.items() if not mask.any()]


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0, 0.85),
    st.sampled_from(["units", "parameters", "macs"]),
    st.sampled_from(["global", "local", "isomorphic"]),
    st.sampled_from([1, 8]),
    st.integers(0, 3),
)
def test_met_and_no_branch_too_many(
    sparsity: float, of: str, scope: str, round_to: int, seed: int
) -> None:
    keep = regrow.choose(
        NET,
        GROUPS,
        sparsity,
        of=of,
        scope=scope,
        round_to=round_to,
        whole=True,
        criterion="random",
        seed=seed,
    )
    full = {name: torch.ones_like(mask) for name, mask in keep.items()}
    goal = left(full, of) * (1 - sparsity + 1e-9)
    assert left(keep, of) <= goal
    for name in gone(keep):  # of a branch with two groups one may be back, for it does nothing
        back = {**keep, name: full[name]}
        assert left(back, of) > goal or any(
            set(gone(keep)) >= {name, other} for other in gone(keep) if other != name
        )
    cut = [name for name, mask in keep.items() if mask.any() and not mask.all()]
    if round_to == 1:  # to the unit
        for name in cut:
            back = keep[name].clone()
            back[(~back).nonzero()[0]] = True
            assert left({**keep, name: back}, of) > goal or len(cut) > 1
    else:  # no group has more than eight units, so that all go whole
        assert not cut
    regrow.shrink(NET, X, keep, groups=GROUPS)


def test_by_score_for_each_multiply_add() -> None:
    """The order of leaving, by brute force over one-group branches."""
    net = resnet20(width=0.5, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.randn(1, 3, 16, 16)
    groups = regrow.groups(net, x)
    weights = dict(net.named_parameters())
    worth = {}
    for group in groups:
        if group.name in groups.needed:
            continue
        total = sum(
            sum(
                float(weights[m.name].detach().movedim(m.dim, 0)[m.indices[i]].square().sum())
                for m in group.members
                if m.name in weights
            )
            ** 0.5
            for i in range(len(group))
        )
        none = {group.name: torch.zeros(len(group), dtype=torch.bool)}
        worth[group.name] = total / (groups.macs() - groups.macs(none))
    order = sorted(worth, key=lambda name: worth[name])
    for count in range(1, 9):
        keep = {name: torch.zeros(len(groups[name]), dtype=torch.bool) for name in order[:count]}
        sparsity = 1 - groups.macs(keep) / groups.macs()
        found = regrow.choose(net, groups, sparsity, of="macs", whole=True, normalisation="max")
        assert set(gone(found)) == set(order[:count])
        assert all(mask.all() or not mask.any() for mask in found.values())


def test_local_takes_from_all_stages_alike() -> None:
    net = resnet20(width=0.5, generator=torch.Generator().manual_seed(0)).eval()
    groups = regrow.groups(net, torch.randn(1, 3, 16, 16))
    keep = regrow.choose(net, groups, 0.5, of="macs", whole=True, scope="local", round_to=64)
    stages = [name.split(".")[0] for name in gone(keep)]
    assert {stages.count(stage) for stage in set(stages)} <= {1, 2}
    assert set(stages) == {"layer1", "layer2", "layer3"}


def test_both_groups_of_a_bottleneck_leave() -> None:
    for seed in range(6):
        keep = regrow.choose(
            NET, GROUPS, 0.6, of="macs", whole=True, criterion="random", seed=seed, round_to=8
        )
        assert keep["blocks.1.first"].any() == keep["blocks.1.middle"].any()
        if not keep["blocks.2.first"].any():
            assert not keep["blocks.2.down"].any()


def test_units_of_the_others_go_when_all_branches_have_left() -> None:
    keep = regrow.choose(NET, GROUPS, 0.97, of="macs", whole=True)
    assert set(gone(keep)) == {group.name for group in GROUPS} - {"stem"}
    assert 0 < int(keep["stem"].sum()) < 4
    with pytest.raises(RegrowError, match=r"0\.999 of the macs cannot be reached: .* removed"):
        regrow.choose(NET, GROUPS, 0.999, of="macs", whole=True)
    with pytest.raises(RegrowError, match=r"whole is true or false; got 1"):
        regrow.choose(NET, GROUPS, 0.5, whole=1)  # type: ignore[arg-type]


def test_what_lives_goes_last() -> None:
    options: dict[str, Any] = {"of": "macs", "whole": True, "criterion": "random"}
    first = regrow.choose(NET, GROUPS, 0.7, seed=1, **options)
    more = regrow.choose(NET, GROUPS, 0.4, seed=2, alive=first, **options)
    assert all(bool((more[name] | ~first[name]).all()) for name in first)
    assert len(gone(more)) < len(gone(first))


def test_a_layer_that_has_left_takes_no_time() -> None:
    """Where the narrowest width that was measured takes half of the whole one's."""
    shares = kept_shares(GROUPS, {})
    table = LatencyTable(dict.fromkeys(shares, ((0.1, 1.0), (1.0, 2.0))), 1)
    keep = {"blocks.0.first": torch.zeros(3, dtype=torch.bool)}
    told = kept_shares(GROUPS, keep)
    left = {name for name in told if told[name] == 0}
    assert left == {f"blocks.0.{name}" for name in ("first", "norm1", "last")}
    others = table.seconds(GROUPS, {}) - 2.0 * len(left)
    assert others - 1.0 < table.seconds(GROUPS, keep) < others  # fewer units of all take less
    found = regrow.choose(NET, GROUPS, 0.3, of=table, whole=True)
    assert table.seconds(GROUPS, found) <= 0.7 * table.seconds(GROUPS, {}) + 1e-6


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def data() -> list[tuple[Tensor, Tensor]]:
    return [(images(i), torch.tensor([i % 5, (i + 1) % 5])) for i in range(4)]


def test_a_program_lets_branches_leave() -> None:
    pattern = {"name": "unit", "whole": True, "round_to": 8}
    program = recipes.iterative(0.6, epochs=3, cuts=2, pattern=pattern, criterion="taylor")
    assert Program.from_json(program.to_json()) == program
    model = built(tuple(block.kind for block in NET.blocks)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    pruning = regrow.attach(model, optimizer, program, example=X, loss_fn=loss_fn, data=data())
    before: set[str] = set()
    for _ in range(3):
        for batch in data():
            optimizer.zero_grad()
            loss_fn(model, batch).backward()
            optimizer.step()
        pruning.epoch_end()
        now = set(gone(pruning.units))
        assert before <= now
        before = now
    pruning.finalize()
    assert before
    model.eval()
    groups = pruning.groups
    assert groups is not None
    small = regrow.shrink(model, X, pruning.units, groups=groups).model
    assert regrow.groups(small, X).macs() == groups.macs(pruning.units) <= 0.4 * groups.macs()
    with torch.no_grad():
        torch.testing.assert_close(small(X), model(X), atol=1e-5, rtol=1e-5)
    by_masks = regrow.shrink(model, X, pruning.masks, groups=groups).model
    assert sum(p.numel() for p in by_masks.parameters()) == sum(
        p.numel() for p in small.parameters()
    )


def test_a_program_without_it_reads_as_before() -> None:
    plain, told = (
        recipes.iterative(0.5, epochs=2, cuts=1, pattern=pattern)
        for pattern in ("unit", {"name": "unit", "whole": False})
    )
    assert plain.to_json() == told.to_json()
    assert "whole" not in plain.to_json()
    assert Program.from_json(plain.to_json()) == plain
