"""Reference networks: small CNNs, the CIFAR ResNets and VGG-16 with batch norm, a CNN for sound.

`N` below is the number of convolution and linear *weights*, the project's default denominator of
sparsity; biases and batch-norm parameters are not in it. With ten classes:

| network | input | N |
|---|---|---|
| `digits_cnn(10)` | 1 x 8 x 8 | 72,608 |
| `small_cnn(10)` | 3 x 32 x 32 | 60,976 |
| `spoken_cnn(10)` | 32 x 64 (log-mel) | 25,216 |
| `resnet20(10)` | 3 x 32 x 32 | 268,336 |
| `resnet56(10)` | 3 x 32 x 32 | 848,944 |
| `vgg16_bn(10)` | 3 x 32 x 32 | 14,715,584 |
| `vgg16_bn(10, width=0.25)` | 3 x 32 x 32 | 921,008 |

Initial values: convolution weights are normal with variance 2 / fan-out (He et al. 2015, the
backward form), fan-out being out_channels * kh * kw; linear weights and biases are uniform in
+-1/sqrt(fan_in), PyTorch's own choice; batch norm starts at scale 1, shift 0.
Convolutions carry no bias, for batch norm follows each of them and would cancel it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.core.errors import RegrowError

_VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A of He et al. 2016).

    Where the block halves the image it also widens it: the shortcut then takes every second row
    and column and appends channels of zeros.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra or self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(inner + x)


def digits_cnn(classes: int = 10, *, generator: torch.Generator | None = None) -> nn.Sequential:
    """Three 3x3 convolutions (32, 64, 64) and a hidden layer of 64, for 1 x 8 x 8 images.

    Args:
        classes: length of the output.
        generator: source of the initial weights (CPU); None takes PyTorch's default generator.

    Returns:
        A network from (B, 1, 8, 8) to logits (B, classes); N = 71,968 + 64 * classes.
    """
    _check(classes, 1)
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=_conv3x3(1, 32),
            bn1=nn.BatchNorm2d(32),
            relu1=nn.ReLU(),
            conv2=_conv3x3(32, 64, stride=2),
            bn2=nn.BatchNorm2d(64),
            relu2=nn.ReLU(),
            conv3=_conv3x3(64, 64),
            bn3=nn.BatchNorm2d(64),
            relu3=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(64 * 2 * 2, 64),
            relu4=nn.ReLU(),
            classifier=nn.Linear(64, classes),
        )
    )
    _initialise(model, generator)
    return model


def small_cnn(classes: int = 10, *, generator: torch.Generator | None = None) -> nn.Sequential:
    """Four 3x3 convolutions (16, 32, 64, 64), three of them of stride 2, and global pooling.

    Args:
        classes: length of the output.
        generator: source of the initial weights (CPU); None takes PyTorch's default generator.

    Returns:
        A network from (B, 3, H, W) to logits (B, classes); N = 60,336 + 64 * classes.
    """
    _check(classes, 1)
    shapes = ((3, 16, 2), (16, 32, 1), (32, 64, 2), (64, 64, 2))
    return _plain(
        [_conv3x3(*shape) for shape in shapes], nn.AdaptiveAvgPool2d(1), classes, generator
    )


def spoken_cnn(classes: int = 10, *, generator: torch.Generator | None = None) -> nn.Sequential:
    """Four convolutions along time (32, 32, 64, 64), two of them of stride 2, global pooling.

    Args:
        classes: length of the output.
        generator: source of the initial weights (CPU); None takes PyTorch's default generator.

    Returns:
        A network from log-mel features (B, 32, T) to logits (B, classes); N = 24,576 + 64 *
        classes.
    """
    _check(classes, 1)
    shapes = ((32, 32, 1), (32, 32, 2), (32, 64, 2), (64, 64, 1))
    layers = [nn.Conv1d(i, o, 3, stride=s, padding=1, bias=False) for i, o, s in shapes]
    return _plain(layers, nn.AdaptiveAvgPool1d(1), classes, generator)


def resnet20(
    classes: int = 10,
    width: float = 1.0,
    *,
    in_channels: int = 3,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """The CIFAR ResNet of depth 20: three stages of three blocks, 16, 32 and 64 channels wide.

    He et al. 2016, section 4.2: 3x3 convolutions, option-A shortcuts, global average pooling.

    Args:
        classes: length of the output.
        width: multiplies every convolution's channels (16 to 64), rounded, at least 1.
        in_channels: 3 for CIFAR, 1 for grey images such as 28 x 28 Fashion-MNIST.
        generator: source of the initial weights (CPU); None takes PyTorch's default generator.

    Returns:
        A network from (B, in_channels, H, W), any H and W, to logits (B, classes). At width 1,
        N = 267,264 + 144 * in_channels + 64 * classes.
    """
    return _resnet(3, classes, width, in_channels, generator)


def resnet56(
    classes: int = 10,
    width: float = 1.0,
    *,
    in_channels: int = 3,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """The CIFAR ResNet of depth 56: as `resnet20`, with nine blocks a stage.

    At width 1, N = 847,872 + 144 * in_channels + 64 * classes.
    """
    return _resnet(9, classes, width, in_channels, generator)


def vgg16_bn(
    classes: int = 10,
    width: float = 1.0,
    *,
    in_channels: int = 3,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman 2015, D) with batch norm, for 32 x 32 images.

    Args:
        classes: length of the output.
        width: multiplies every convolution's channels (64 to 512), rounded, at least 1.
        in_channels: channels of the image.
        generator: source of the initial weights (CPU); None takes PyTorch's default generator.

    Returns:
        A network from (B, in_channels, 32, 32) to logits (B, classes). At width 1,
        N = 14,708,736 + 576 * in_channels + 512 * classes.

    Departures: the convolutions have no biases, where the paper's do; the three linear layers of
    the ImageNet network become one, as is usual for CIFAR.
    """
    _check(classes, in_channels)
    _check_width(width)
    layers: list[nn.Module] = []
    channels = in_channels
    for stage in _VGG16_STAGES:
        for full in stage:
            outputs = _scaled(full, width)
            layers += [_conv3x3(channels, outputs), nn.BatchNorm2d(outputs), nn.ReLU()]
            channels = outputs
        layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            features=nn.Sequential(*layers),
            flatten=nn.Flatten(),
            classifier=nn.Linear(channels, classes),
        )
    )
    _initialise(model, generator)
    return model


def matching_width(build: Callable[[float], nn.Module], weights: int) -> float:
    """The width at which a family of networks has about as many weights as another network.

    Counted are convolution and linear weights, as in N above. The count rises with the width in
    steps; of all its values the one nearest to `weights` is found by bisection (the smaller of
    two that are equally near).

    Args:
        build: makes the network of a width, such as `lambda w: resnet20(10, w)`; it is called
            with the meta device as default, so nothing is allocated or drawn.
        weights: how many the network shall have, at least 1.

    Returns:
        a width of as few decimals as give that count.

    Raises:
        RegrowError: `weights` is no count, or the networks do not grow with the width.
    """
    if not weights >= 1:
        raise RegrowError(f"weights is a count of at least 1; got {weights!r}.")

    def count(width: float) -> int:
        with torch.device("meta"):
            modules = list(build(width).modules())
        return sum(m.weight.numel() for m in modules if isinstance(m, nn.Conv2d | nn.Linear))

    low, high = 2.0**-20, 1.0
    while count(high) <= weights:
        low, high = high, 2 * high
        if high > 2**16:
            raise RegrowError(
                f"build makes no network of {weights:,} weights: {count(high):,} at width {high:g}."
            )
    # The lower end always has at most `weights`, except where even the least network has more.
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        if count(middle) <= weights:
            low = middle
        else:
            high = middle
    below, above = count(low), count(high)
    found, best = (low, below) if weights - below <= above - weights else (high, above)
    decimals = (side(found * 10**d) / 10**d for d in range(12) for side in (math.floor, math.ceil))
    return next((w for w in decimals if w > 0 and count(w) == best), found)


def _resnet(
    blocks: int, classes: int, width: float, in_channels: int, generator: torch.Generator | None
) -> nn.Sequential:
    """A CIFAR ResNet of depth 6 * blocks + 2."""
    _check(classes, in_channels)
    _check_width(width)
    first, second, third = (_scaled(full, width) for full in (16, 32, 64))

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        rest = [_Block(outputs, outputs, 1) for _ in range(blocks - 1)]
        return nn.Sequential(_Block(inputs, outputs, stride), *rest)

    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=_conv3x3(in_channels, first),
            bn1=nn.BatchNorm2d(first),
            relu=nn.ReLU(),
            layer1=stage(first, first, 1),
            layer2=stage(first, second, 2),
            layer3=stage(second, third, 2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(third, classes),
        )
    )
    _initialise(model, generator)
    return model


def _plain(
    convolutions: Sequence[nn.Conv1d | nn.Conv2d],
    pool: nn.Module,
    classes: int,
    generator: torch.Generator | None,
) -> nn.Sequential:
    """Convolutions, each with batch norm and ReLU, then a pool over all places and a classifier."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, layer in enumerate(convolutions, 1):
        norm = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
        layers[f"conv{number}"] = layer
        layers[f"bn{number}"] = norm(layer.out_channels)
        layers[f"relu{number}"] = nn.ReLU()
    layers.update(pool=pool, flatten=nn.Flatten())
    layers["classifier"] = nn.Linear(convolutions[-1].out_channels, classes)
    model = nn.Sequential(layers)
    _initialise(model, generator)
    return model


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _initialise(model: nn.Module, generator: torch.Generator | None) -> None:
    """Draw every convolution and linear parameter again, in the order of the modules."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def _check(classes: int, in_channels: int) -> None:
    for name, value in (("classes", classes), ("in_channels", in_channels)):
        if not (isinstance(value, int) and value >= 1):
            raise RegrowError(f"{name} must be a whole number of at least 1; got {value!r}.")


def _check_width(width: float) -> None:
    if not (math.isfinite(width) and width > 0):
        raise RegrowError(f"width must be a positive number; got {width!r}.")
