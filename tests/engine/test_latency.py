"""Time as a budget: the table against what it was made of, and choices that keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow import LatencyTable
from regrow.bench.models import digits_cnn
from regrow.core.errors import RegrowError
from regrow.engine.latency import kept_shares

X = torch.randn(2, 1, 8, 8)
NET = digits_cnn(generator=torch.Generator().manual_seed(0)).eval()
GROUPS = regrow.groups(NET, X)
LAYERS = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "hidden", "classifier", ""}


def table(**layers: Any) -> LatencyTable:
    flat = ((0.5, 1.0), (1.0, 1.0))
    return LatencyTable({name: layers.get(name, flat) for name in LAYERS}, 1)


def first(width: float) -> dict[str, torch.Tensor]:
    return {g.name: torch.arange(len(g)) < max(1, round(width * len(g))) for g in GROUPS}


def test_shares_are_those_of_the_weights() -> None:
    shares = kept_shares(GROUPS, first(0.5))
    assert shares.keys() == LAYERS
    assert {shares[name] for name in ("conv1", "bn2", "classifier", "")} == {0.5}
    assert {shares[name] for name in ("conv2", "conv3", "hidden")} == {0.25}
    assert set(kept_shares(GROUPS, {}).values()) == {1.0}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 63), st.floats(0.001, 1), st.floats(0, 1))
def test_between_widths_time_is_a_straight_line(kept: int, slope: float, base: float) -> None:
    made = table(conv2=((0.0, base), (1.0, base + slope)))
    keep = {"conv2": torch.arange(64) < kept}
    rest = len(LAYERS) - 1
    assert made.seconds(GROUPS, keep) == pytest.approx(rest + base + slope * kept / 64)


@pytest.mark.parametrize("scope", ["global", "local"])
def test_a_choice_meets_the_time_and_no_unit_more(scope: str) -> None:
    slow = {name: ((0.01, 0.1), (0.3, 1.0), (1.0, 9.0)) for name in LAYERS if "conv" in name}
    made = table(**slow)
    whole = made.seconds(GROUPS, {})
    keep = regrow.choose(NET, GROUPS, 0.5, of=made, scope=scope)
    assert made.seconds(GROUPS, keep) <= 0.5 * whole
    scores = {g.name: torch.rand(1) for g in GROUPS}
    more = dict(keep)
    back = []
    for name in scores:
        gone = (~keep[name]).nonzero().flatten()
        if len(gone):
            more[name] = keep[name].clone()
            more[name][gone[0]] = True
            back.append(made.seconds(GROUPS, more))
            more[name] = keep[name]
    assert max(back) > 0.5 * whole
    with pytest.raises(RegrowError, match="of the time cannot be reached: with all floors"):
        regrow.choose(NET, GROUPS, 0.99, of=made)


def test_measured_it_tells_the_times_of_its_own_widths(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    made = regrow.measure_latency(NET, X, GROUPS, widths=(0.25, 0.5), seconds=0.05)
    assert torch.get_num_threads() == before
    assert made.layers.keys() == LAYERS
    for name, points in made.layers.items():
        assert [share for share, _ in points] == sorted({share for share, _ in points})
        times = [seconds for _, seconds in points]
        assert times == sorted(times), name
        assert times[0] > 0
    ends = [made.seconds(GROUPS, first(width)) for width in (0.25, 0.5, 1.0)]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(sum(points[-1][1] for points in made.layers.values()))
    made.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == made
    keep = regrow.choose(NET, GROUPS, 0.0, of=made)
    assert all(bool(mask.all()) for mask in keep.values())


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="widths are fractions"):
        regrow.measure_latency(NET, X, GROUPS, widths=(0.0,))
    with pytest.raises(RegrowError, match="of another network: 'hidden'"):
        LatencyTable({"conv1": ((1.0, 1.0),)}, 1).seconds(GROUPS, {})
    for text, words in (
        ("{", "is no table"),
        ("[]", "is no table"),
        ('{"format": "x", "version": 1}', "no table of latencies of version 1"),
        (
            '{"format": "regrow-latency", "version": 1, "threads": 1, "layers": {"a": []}}',
            "a layer has no times",
        ),
    ):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(RegrowError, match=words):
            LatencyTable.load(tmp_path / "t.json")
    with pytest.raises(RegrowError, match="cannot be read"):
        LatencyTable.load(tmp_path / "none.json")


def test_a_module_inside_one_with_a_parameter_is_not_counted_twice() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.a = nn.Linear(8, 8)
            self.b = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.b(self.a(x).relu()) * self.scale
            return out

    model = nn.Sequential(nn.Linear(8, 8), Outer())
    x = torch.randn(2, 8)
    groups = regrow.groups(model, x)
    made = regrow.measure_latency(model, x, groups, widths=(0.5,), seconds=0.02)
    assert made.layers.keys() == {"0", "1", "1.a", "1.b", ""}
    parts = sum(made.layers[name][-1][1] for name in ("1", "1.a", "1.b"))
    assert 0 < made.layers["1"][-1][1] < 0.8 * parts
