"""Reference networks: exact weight counts, shapes, gradients, initial values."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from regrow.bench.models import (
    digits_cnn,
    matching_width,
    resnet20,
    resnet56,
    small_cnn,
    spoken_cnn,
    vgg16_bn,
)
from regrow.core.errors import RegrowError

VGG_PLAN = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def weights(model: nn.Module) -> int:
    """Convolution and linear weights, without biases."""
    kinds = nn.Conv1d | nn.Conv2d | nn.Linear
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, kinds))


def resnet_formula(
    blocks: int, classes: int, in_channels: int, widths: tuple[int, ...] = (16, 32, 64)
) -> int:
    """A stem, 2n convolutions a stage (the first of a stage reads the width before), a head."""
    convs = [(in_channels, widths[0])]
    before = widths[0]
    for width in widths:
        convs += [(before, width)] + [(width, width)] * (2 * blocks - 1)
        before = width
    return sum(9 * a * b for a, b in convs) + widths[-1] * classes


def vgg_formula(classes: int, divisor: int, in_channels: int) -> int:
    chain = [in_channels, *(c // divisor for c in VGG_PLAN)]
    convs = sum(9 * a * b for a, b in pairwise(chain))
    return convs + chain[-1] * classes


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_weight_counts_match_the_formulas(classes: int, in_channels: int) -> None:
    for build, blocks, constant in ((resnet20, 3, 267_264), (resnet56, 9, 847_872)):
        count = weights(build(classes, in_channels=in_channels))
        assert count == resnet_formula(blocks, classes, in_channels)
        assert count == constant + 144 * in_channels + 64 * classes
    quarter = weights(vgg16_bn(classes, 0.25, in_channels=in_channels))
    assert quarter == vgg_formula(classes, 4, in_channels)
    head = 64 * 2 * 2 * 64 + 64 * classes
    assert weights(digits_cnn(classes)) == 9 * (32 + 32 * 64 + 64 * 64) + head


def test_documented_counts_for_ten_classes() -> None:
    assert weights(digits_cnn()) == 72_608
    assert weights(small_cnn()) == 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 64) + 640 == 60_976
    assert weights(spoken_cnn()) == 3 * (2 * 32 * 32 + 32 * 64 + 64 * 64) + 640 == 25_216
    assert weights(resnet20()) == 268_336
    assert weights(resnet56()) == 848_944
    assert weights(vgg16_bn(width=0.25)) == 921_008
    vgg = vgg16_bn()
    assert weights(vgg) == 14_715_584 == vgg_formula(10, 1, 3)
    assert sum(isinstance(m, nn.Conv2d) for m in vgg.modules()) == 13


def test_all_parameters_of_resnet20_are_the_published_number() -> None:
    # 0.27 M in He et al. 2016, table 6: weights, batch norm (two a channel) and ten biases
    norm = 2 * (16 * 7 + 32 * 6 + 64 * 6)
    assert sum(p.numel() for p in resnet20().parameters()) == 268_336 + norm + 10 == 269_722


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: digits_cnn(7), (1, 8, 8)),
        (lambda: small_cnn(7), (3, 32, 32)),
        (lambda: spoken_cnn(7), (32, 64)),
        (lambda: resnet20(7), (3, 32, 32)),
        (lambda: resnet20(7, in_channels=1), (1, 28, 28)),
        (lambda: resnet56(7, in_channels=1), (1, 28, 28)),
        (lambda: resnet20(7, 0.3), (3, 32, 32)),
        (lambda: resnet20(7, 0.01), (3, 32, 32)),
        (lambda: vgg16_bn(7, 0.25), (3, 32, 32)),
        (lambda: vgg16_bn(7, 0.01, in_channels=1), (1, 32, 32)),
    ],
)
def test_logits_and_gradients(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = build()
    logits = model(torch.randn(4, *shape))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    heads = [p for n, p in model.named_parameters() if n.endswith(("conv1.weight", "0.weight"))]
    assert heads
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in heads)


def test_option_a_shortcut_subsamples_and_appends_zero_channels() -> None:
    block = resnet20().get_submodule("layer2.0").eval()
    for name in ("conv1", "conv2"):
        nn.init.zeros_(block.get_parameter(f"{name}.weight"))
    x = torch.rand(2, 16, 7, 6)
    out = block(x)  # the inner path is silent, so this is relu(shortcut) = shortcut
    assert out.shape == (2, 32, 4, 3)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert out[:, 16:].abs().max() == 0


def test_initial_values_follow_the_documented_law_and_the_generator() -> None:
    model = resnet20(generator=torch.Generator().manual_seed(3))
    again = resnet20(generator=torch.Generator().manual_seed(3))
    other = resnet20(generator=torch.Generator().manual_seed(4))
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(model.conv1.weight, other.conv1.weight)
    conv = model.get_parameter("layer3.1.conv1.weight")
    assert conv.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    wide = model.get_parameter("layer3.0.conv1.weight")  # fan-in is 32 * 9, fan-out 64 * 9
    assert wide.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert model.linear.weight.abs().max() <= 1 / 8


def test_digits_cnn_learns_quickly() -> None:
    # each class is one bright pixel in noise: a network that trains gets it in a few steps
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(100) % 10
    images = 0.3 * torch.randn(100, 1, 8, 8, generator=generator)
    images[torch.arange(100), 0, labels // 5 * 4 + 1, labels % 5 + 1] += 4
    model = digits_cnn(generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    accuracy = (model(images).argmax(1) == labels).float().mean().item()
    assert accuracy > 0.95


@pytest.mark.parametrize("build", [vgg16_bn, resnet20, resnet56])
@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_bad_width_is_refused(build: Callable[..., nn.Module], width: float) -> None:
    with pytest.raises(RegrowError, match="width must be a positive number"):
        build(10, width)


@pytest.mark.parametrize("width", [0.01, 0.1, 0.32, 0.5, 1.0, 1.7])
def test_resnets_of_other_widths(width: float) -> None:
    # Python rounds halves to the even number, as the network does.
    widths = tuple(max(1, round(full * width)) for full in (16, 32, 64))
    assert weights(resnet20(10, width)) == resnet_formula(3, 10, 3, widths)
    block = resnet20(10, width).get_submodule("layer2.0").eval()
    for name in ("conv1", "conv2"):
        nn.init.zeros_(block.get_parameter(f"{name}.weight"))
    x = torch.rand(2, widths[0], 6, 5)
    out = block(x)
    assert out.shape == (2, widths[1], 3, 3)
    assert torch.equal(out[:, : widths[0]], x[:, :, ::2, ::2])
    assert not out[:, widths[0] :].any()


@pytest.mark.parametrize("asked", [1, 200, 1_500, 13_417, 26_834, 120_000, 268_336, 300_001])
def test_matching_width_is_the_nearest_of_all(asked: int) -> None:
    state = torch.get_rng_state()
    width = matching_width(lambda w: resnet20(10, w), asked)
    assert torch.equal(torch.get_rng_state(), state)
    assert width == matching_width(lambda w: resnet20(10, w), asked)
    # Channel counts change at odd multiples of 1/128, so these are all the networks there are.
    counts = {
        resnet_formula(3, 10, 3, tuple(max(1, round(full * n / 256)) for full in (16, 32, 64)))
        for n in range(1, 300)
    }
    found = weights(resnet20(10, width))
    assert abs(found - asked) == min(abs(count - asked) for count in counts)
    if asked == 268_336:
        assert width == 1


def test_matching_width_of_other_families() -> None:
    def line(width: float) -> nn.Module:
        return nn.Linear(10, max(1, round(4 * width)))

    # 10, 20, 30 ... weights; of two that are equally near the smaller.
    for asked, expected in ((1, 10), (14, 10), (15, 10), (16, 20), (1_234, 1_230)):
        assert line(matching_width(line, asked)).get_parameter("weight").numel() == expected
    generator = torch.Generator().manual_seed(1)
    quarter = matching_width(lambda w: vgg16_bn(10, w, generator=generator), 921_008)
    assert weights(vgg16_bn(10, quarter)) == 921_008
    assert generator.initial_seed() == 1
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(1).get_state())
    with pytest.raises(RegrowError, match="weights is a count of at least 1; got 0"):
        matching_width(line, 0)
    with pytest.raises(RegrowError, match="build makes no network of 99 weights: 6 at width"):
        matching_width(lambda w: nn.Linear(2, 3), 99)


def test_bad_classes_and_channels_are_refused() -> None:
    with pytest.raises(RegrowError, match="classes must be"):
        digits_cnn(0)
    with pytest.raises(RegrowError, match="in_channels must be"):
        resnet20(10, in_channels=0)
