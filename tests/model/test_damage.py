"""Structural similarity: closed forms, a sliding-window oracle, maps computed by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regrow.bench.models import digits_cnn
from regrow.core.errors import RegrowError
from regrow.model.damage import damage, layer_maps, ssim

C1, C2 = 1e-4, 9e-4


def oracle(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM by a loop over windows and the textbook sample statistics."""
    side = {3: 3, 4: 3, 5: 5, 6: 5}.get(min(a.shape), 7)
    values = []
    for row in range(a.shape[0] - side + 1):
        for column in range(a.shape[1] - side + 1):
            x = a[row : row + side, column : column + side].ravel()
            y = b[row : row + side, column : column + side].ravel()
            (vx, vxy), (_, vy) = np.cov(x, y)  # divisor N - 1
            mx, my = x.mean(), y.mean()
            top = (2 * mx * my + C1) * (2 * vxy + C2)
            values.append(top / ((mx * mx + my * my + C1) * (vx + vy + C2)))
    return float(np.mean(values))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(3, 12),
    width=st.integers(3, 12),
    mix=st.floats(0, 1),
    power=st.sampled_from([0.5, 1, 4]),
    seed=st.integers(0, 10_000),
)
def test_against_a_loop_over_windows(
    height: int, width: int, mix: float, power: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    a = random.random((height, width)) ** power
    b = mix * a + (1 - mix) * random.random((height, width))
    found = ssim(torch.tensor(a), torch.tensor(b))
    assert found == pytest.approx(oracle(a, b), abs=1e-12)
    assert found == ssim(torch.tensor(b), torch.tensor(a))
    assert -1 <= found <= 1


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 9), (2, 2), (2, 30), (3, 3), (4, 9), (8, 8), (32, 32)]
)
def test_identical_maps_give_one(shape: tuple[int, int]) -> None:
    a = torch.rand(shape, dtype=torch.float64)
    assert ssim(a, a.clone()) == pytest.approx(1, abs=1e-15)
    assert ssim(torch.zeros(shape), torch.zeros(shape)) == 1


@pytest.mark.parametrize(("p", "q"), [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5)])
def test_constant_maps_leave_only_the_luminance_term(p: float, q: float) -> None:
    found = ssim(torch.full((9, 8), p), torch.full((9, 8), q))
    assert found == pytest.approx((2 * p * q + C1) / (p * p + q * q + C1), abs=1e-12)


def test_one_window_by_hand() -> None:
    # a 3 x 3 checkerboard with five ones, and its negative: means 5/9 and 4/9, sum of squared
    # deviations 20/9, hence sample variance 5/18 and covariance -5/18
    a = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    expected = (40 / 81 + C1) * (-10 / 18 + C2) / ((41 / 81 + C1) * (10 / 18 + C2))
    assert ssim(a, 1 - a) == pytest.approx(expected, abs=1e-12)


def test_small_maps_are_compared_by_cosine() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert ssim(a, b) == pytest.approx(math.sqrt(0.5))
    assert ssim(a, 1 - a) == 0
    assert ssim(a, torch.zeros(1, 2)) == 0
    wide = torch.rand(2, 40, dtype=torch.float64)
    expected = torch.cosine_similarity(wide.flatten(), wide.flip(1).flatten(), dim=0)
    assert ssim(wide, wide.flip(1)) == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3, 3), torch.zeros(3, 4), r"\(3, 3\) and \(3, 4\)"),
        (torch.zeros(3), torch.zeros(3), "same shape"),
        (torch.zeros(0, 3), torch.zeros(0, 3), "not empty"),
        (torch.full((3, 3), 1.1), torch.zeros(3, 3), "map a leaves"),
        (torch.zeros(3, 3), torch.full((3, 3), math.nan), "map b leaves"),
    ],
)
def test_bad_maps_are_refused(a: Tensor, b: Tensor, message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        ssim(a, b)


def run(model: nn.Module, batch: Any) -> None:
    model(batch)


def expected_map(outputs: list[Tensor]) -> Tensor:
    """The definition, one sample after the other, from outputs (C, H, W)."""
    maps = []
    for output in outputs:
        a = output.detach().double().sum(0)
        norm = a.abs().sum()
        maps.append(a / norm if norm else a)
    mean = torch.stack(maps).mean(0)
    return (mean - mean.min()) / (mean.max() - mean.min())


def test_layer_maps_follow_the_definition() -> None:
    torch.manual_seed(0)
    model = digits_cnn().double()
    batches = [torch.rand(n, 1, 8, 8, dtype=torch.float64) for n in (3, 1, 4)]
    batches[0][1] = 0  # conv1 has no bias, so this sample has a zero map
    found = layer_maps(model, batches, run, ["conv1", "conv2", "hidden", "classifier"])
    assert {n: tuple(m.shape) for n, m in found.items()} == {
        "conv1": (8, 8),
        "conv2": (4, 4),
        "hidden": (1, 64),
        "classifier": (1, 10),
    }
    model.eval()
    samples = [x for batch in batches for x in batch]
    first = [model.conv1(x[None])[0] for x in samples]
    torch.testing.assert_close(found["conv1"], expected_map(first))
    logits = [model(x[None]).reshape(1, 1, 10) for x in samples]
    torch.testing.assert_close(found["classifier"], expected_map(logits))
    for values in found.values():
        assert values.dtype == torch.float64
        assert (values.min(), values.max()) == (0, 1)


def test_two_samples_by_hand() -> None:
    # two channels sum to [[1, 3], [0, -4]] (L1 norm 8) and [[2, 0], [0, 2]] (norm 4): the mean is
    # [[5, 3], [0, 0]] / 16, scaled [[1, .6], [0, 0]]
    x = torch.tensor(
        [[[[1.0, 1], [0, -2]], [[0, 2], [0, -2]]], [[[0, 0], [5, 0]], [[2, 0], [-5, 2]]]]
    )
    found = layer_maps(nn.Sequential(nn.Identity()), [x], run, ["0"])["0"]
    torch.testing.assert_close(found, torch.tensor([[1, 0.6], [0, 0]], dtype=torch.float64))


def test_lines_tokens_and_repeated_layers() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 4, 1)
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.linear(self.conv(x).mT))

    torch.manual_seed(0)
    model, x = Mixed().double(), torch.rand(3, 2, 5, dtype=torch.float64)
    found = layer_maps(model, [x], run, ["conv", "linear"])
    line = model.conv(x)
    torch.testing.assert_close(found["conv"], expected_map([s[:, None] for s in line]))
    once = model.linear(line.mT)
    calls = [*once, *model.linear(once)]  # six maps: two calls on three samples, tokens summed
    torch.testing.assert_close(found["linear"], expected_map([s[:, None] for s in calls]))


@pytest.mark.parametrize("shape", [(8, 8), (2, 2), (1, 9)])
def test_a_dead_layer_is_badly_damaged_and_finite(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    dead = copy.deepcopy(dense)
    nn.init.zeros_(dead[0].weight)  # its bias makes a constant map
    batches = [torch.rand(8, 3, *shape)]
    before, after = (layer_maps(m, batches, run, ["0", "2"]) for m in (dense, dead))
    assert after["0"].abs().max() == 0
    found = damage(before, after)
    assert all(math.isfinite(v) and v < 0.1 for v in found.values())
    assert damage(after, after) == {"0": 1.0, "2": 1.0}
    nn.init.zeros_(dead[0].bias)
    assert damage(before, layer_maps(dead, batches, run, ["0", "2"])) == found


def test_damage_starts_at_the_pruned_layer_and_grows_with_sparsity() -> None:
    generator = torch.Generator().manual_seed(1)
    dense = digits_cnn(generator=generator)
    batches = [torch.rand(16, 1, 8, 8, generator=generator)]
    names = ["conv1", "conv2", "conv3", "hidden"]
    before = layer_maps(dense, batches, run, names)
    values = []
    for sparsity in (0.0, 0.5, 0.99):
        sparse = copy.deepcopy(dense)
        weight = sparse.conv2.weight.detach()
        weight[weight.abs() <= weight.abs().quantile(sparsity)] = 0
        values.append(damage(before, layer_maps(sparse, batches, run, names)))
    assert values[0]["conv2"] > 0.999
    assert all(v["conv1"] == 1 for v in values)
    assert values[0]["conv2"] > values[1]["conv2"] > values[2]["conv2"]


def test_the_model_is_left_as_it_was_even_after_an_error() -> None:
    model = digits_cnn().train()
    model.bn1.eval()
    before = copy.deepcopy(model.state_dict())
    layer_maps(model, [torch.rand(4, 1, 8, 8)], run, ["conv2"])
    with pytest.raises(RuntimeError, match="channels"):
        layer_maps(model, [torch.rand(4, 3, 8, 8)], run, ["conv2"])
    assert model.training
    assert model.bn2.training
    assert not model.bn1.training
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_half_precision_outputs_are_summed_in_single_precision() -> None:
    ones = torch.ones(1, 4096, 2, 2, dtype=torch.bfloat16)
    ones[0, 0, 0, 0] = 0  # 4095 is no bfloat16, so a sum in half precision would look constant
    found = layer_maps(nn.Sequential(nn.Identity()), [ones], run, ["0"])["0"]
    assert found.tolist() == [[0, 1], [1, 1]]


def test_rounding_of_a_constant_map_is_not_taken_for_structure() -> None:
    flat = torch.full((1, 1, 4, 4), 0.1)
    flat[0, 0, ::2] = torch.nextafter(flat[0, 0, ::2], torch.tensor(1.0))
    assert flat.unique().numel() == 2
    found = layer_maps(nn.Sequential(nn.Identity()), [flat], run, ["0"])["0"]
    assert found.abs().max() == 0


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"x": x}


@pytest.mark.parametrize(
    ("model", "sizes", "names", "message"),
    [
        (digits_cnn(), [(2, 1, 8, 8)], ["conv4"], "unknown module 'conv4'.*'conv"),
        (digits_cnn(), [], ["conv1"], "no output of layer 'conv1'"),
        (nn.ModuleDict({"a": nn.ReLU()}), [(2, 1, 8, 8)], ["a"], "no output of layer 'a'"),
        (nn.Sequential(Named()), [(2, 1, 8, 8)], ["0"], r"'0' \(Named\) gives dict"),
        (nn.Sequential(nn.ReLU()), [(2, 1, 4, 8, 8)], ["0"], r"shape \(2, 1, 4, 8, 8\)"),
        (nn.Sequential(nn.Linear(3, 2)), [(3,)], ["0"], r"shape \(2,\)"),
        (
            nn.Sequential(nn.ReLU()),
            [(2, 1, 8, 8), (2, 1, 8, 9)],
            ["0"],
            r"\(8, 8\) and then \(8, 9\)",
        ),
    ],
)
def test_what_has_no_map_is_refused(
    model: nn.Module, sizes: list[tuple[int, ...]], names: list[str], message: str
) -> None:
    def forward(m: nn.Module, batch: Tensor) -> None:
        if not isinstance(m, nn.ModuleDict):
            m(batch)

    with pytest.raises(RegrowError, match=message):
        layer_maps(model, [torch.rand(size) for size in sizes], forward, names)


def test_outputs_that_are_not_finite_are_refused() -> None:
    model = nn.Sequential(nn.Identity())
    with pytest.raises(RegrowError, match="layer '0' hold NaN"):
        layer_maps(model, [torch.full((1, 1, 3, 3), math.inf)], run, ["0"])


def test_maps_of_different_networks_are_refused() -> None:
    a = torch.rand(3, 3)
    with pytest.raises(RegrowError, match=r"\['y'\] appear on one side"):
        damage({"x": a, "y": a}, {"x": a})
    with pytest.raises(RegrowError, match="layer 'x' differ in size"):
        damage({"x": a}, {"x": a[:2]})
