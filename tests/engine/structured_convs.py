"""Small convolutional networks whose coupled groups are known."""

from __future__ import annotations

from typing import Any

import torch
from structured_zoo import Case, Net, case
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = (2, 3, 8, 8)
END = "an output of the network"


def conv(ins: int, outs: int, size: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, size, padding=more.pop("padding", size // 2), **more)


def chain(*parts: nn.Module, **more: Any) -> Net:
    """Convolution `a`, then the parts, then convolution `z` with two outputs."""
    parts_of = {f"p{i}": part for i, part in enumerate(parts)}

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.a(x)
        for name in parts_of:
            x = getattr(self, name)(x)
        return self.z(x)

    a, z = more.get("a", 8), more.get("z", more.get("a", 8))
    return Net(forward, a=conv(3, a, bias=more.get("bias", True)), z=conv(z, 2), **parts_of)


class Shortcut(nn.Module):
    """A residual block."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.first, self.norm = conv(width, inside, bias=False), nn.BatchNorm2d(inside)
        self.second, self.last = conv(inside, width, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.last(self.second(torch.relu(self.norm(self.first(x))))))


class OptionA(nn.Module):
    """A shortcut without parameters: new channels are zeros on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(4, 8, stride=2), conv(8, 8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = torch.relu(self.c(torch.relu(self.b(x))) + short)
        return self.fc(x.mean((2, 3)))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, inside, 1), nn.Conv2d(inside, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Shuffle(nn.Module):
    """Channels (groups, rest) in the order (rest, groups), by views."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2)
        return x.reshape(n, c, h, w)


class Halves(nn.Module):
    """Two halves of the channels by sizes that it holds, one of them through a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes, self.inner = [width // 2, width // 2], conv(width // 2, width // 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, self.sizes, 1)
        return torch.cat([a, self.inner(b)], 1)


class Auxiliary(nn.Module):
    """A second head that runs in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head, self.aux = (
            conv(3, 8),
            conv(8, 6),
            nn.Linear(6, 2),
            nn.Linear(8, 2),
        )

    def forward(self, x: Tensor) -> Any:
        first = torch.relu(self.a(x))
        out = self.head(torch.relu(self.b(first)).mean((2, 3)))
        return (out, self.aux(first.mean((2, 3)))) if self.training else out


def unet() -> Net:
    def forward(s: Any, x: Tensor) -> Tensor:
        high = torch.relu(s.a(x))
        low = torch.relu(s.b(F.max_pool2d(high, 2)))
        up = F.interpolate(s.up(low), scale_factor=1.0) + 0.0
        return s.z(torch.cat([high, F.interpolate(up, size=high.shape[-2:], mode="bilinear")], 1))

    return Net(forward, a=conv(3, 4), b=conv(4, 6), up=nn.ConvTranspose2d(6, 5, 2, 2), z=conv(9, 2))


def norm(part: nn.Module) -> Net:
    return chain(part, nn.ReLU())


def twice_depthwise() -> Net:
    """Two layers of one weight."""
    made = chain(conv(8, 8, groups=8), nn.ReLU(), conv(8, 8, groups=8))
    made.p2.weight = made.p0.weight
    return made


def pools(kind: Any) -> Net:
    d = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[kind]
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[kind]
    axes = tuple(range(2, 2 + kind))

    def forward(s: Any, x: Tensor) -> Tensor:
        x = pool(torch.relu(s.a(x)), 2)
        return s.fc(torch.relu(s.b(x)).mean(axes))

    b = d(6, 5, 3, stride=2, padding=2, dilation=2)
    return Net(forward, a=d(3, 6, 3, padding=1), b=b, fc=nn.Linear(5, 2))


def added() -> Net:
    def forward(s: Any, x: Tensor) -> Tensor:
        x = s.a(x) + s.b(x)[:, :, :1] + s.shift + s.c(x).mean((2, 3), keepdim=True)
        return s.z(torch.relu(x))

    shift = nn.Parameter(torch.randn(6, 1, 1))
    return Net(forward, a=conv(3, 6), b=conv(3, 6), c=conv(3, 6), shift=shift, z=conv(6, 2))


def joined() -> Net:
    def forward(s: Any, x: Tensor) -> Tensor:
        first = torch.relu(s.a(x))
        second = torch.relu(s.b(torch.cat([x, first], 1)))
        return s.z(torch.cat([x, first, second], 1))

    return Net(forward, a=conv(3, 4), b=conv(7, 5), z=conv(12, 2))


CONVS: dict[str, Case] = {
    "conv1d": case(lambda: pools(1), (2, 3, 9), a=6, b=5, bound={"fc": END}),
    "conv2d": case(lambda: pools(2), IMAGE, a=6, b=5, bound={"fc": END}),
    "conv3d": case(lambda: pools(3), (2, 3, 6, 6, 6), a=6, b=5, bound={"fc": END}),
    "no batch": case(lambda: chain(nn.ReLU()), (3, 8, 8), a=8, bound={"z": END}),
    "grouped": case(lambda: chain(conv(8, 12, groups=4), nn.ReLU(), z=12), IMAGE, a=4),
    "wide groups": case(lambda: chain(conv(8, 12, groups=2), nn.ReLU(), z=12), IMAGE, a=4, p0=6),
    "depthwise": case(lambda: chain(conv(8, 8, groups=8), nn.ReLU()), IMAGE, a=8),
    "depthwise twice": case(twice_depthwise, IMAGE, a=8),
    "multiplier": case(lambda: chain(conv(8, 16, groups=8), nn.ReLU(), z=16), IMAGE, a=8),
    "transposed": case(
        lambda: chain(nn.ConvTranspose2d(8, 6, 3, 2), nn.ReLU(), z=6), IMAGE, a=8, p0=6
    ),
    "transposed groups": case(
        lambda: chain(nn.ConvTranspose2d(8, 12, 3, 2, groups=4), nn.ReLU(), z=12), IMAGE, a=4
    ),
    "transposed depthwise": case(
        lambda: chain(nn.ConvTranspose2d(8, 8, 2, 2, groups=8, bias=False)), IMAGE, a=8
    ),
    "circular": case(
        lambda: chain(nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"), z=6),
        IMAGE,
        a=8,
        p0=6,
    ),
    "reflect": case(lambda: chain(nn.ReflectionPad2d(1), nn.ReplicationPad2d(1)), IMAGE, a=8),
    "batch norm": case(lambda: norm(nn.BatchNorm2d(8)), IMAGE, a=8),
    "plain batch norm": case(lambda: norm(nn.BatchNorm2d(8, affine=False)), IMAGE, a=8),
    "group norm": case(lambda: norm(nn.GroupNorm(4, 8)), IMAGE, a=4),
    "plain group norm": case(lambda: norm(nn.GroupNorm(4, 8, affine=False)), IMAGE, a=4),
    "group norm of one": case(
        lambda: norm(nn.GroupNorm(1, 8)), IMAGE, bound={"a": "normalised over", "z": END}
    ),
    "instance norm": case(lambda: norm(nn.InstanceNorm2d(8, affine=True)), IMAGE, a=8),
    "plain instance norm": case(lambda: norm(nn.InstanceNorm2d(8)), IMAGE, a=8),
    "tracked instance norm": case(
        lambda: norm(nn.InstanceNorm2d(8, track_running_stats=True)), IMAGE, a=8
    ),
    "prelu": case(lambda: norm(nn.PReLU(8)), IMAGE, a=8),
    "prelu of one": case(lambda: norm(nn.PReLU()), IMAGE, a=8),
    "local response": case(lambda: norm(nn.LocalResponseNorm(3)), IMAGE, bound={"a": "", "z": END}),
    "activations": case(
        lambda: chain(nn.GELU(), nn.Hardswish(), nn.LeakyReLU(), nn.SiLU(), nn.Softplus()),
        IMAGE,
        a=8,
    ),
    "dropout": case(lambda: chain(nn.Dropout2d(), nn.Dropout()), IMAGE, a=8),
    "pools": case(
        lambda: chain(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveMaxPool2d(2)), IMAGE, a=8
    ),
    "residual": case(
        lambda: chain(Shortcut(8, 5), Shortcut(8, 6)),
        IMAGE,
        **{"a": 8, "p0.first": 5, "p1.first": 6},
    ),
    "option a": case(OptionA, IMAGE, a=4, b=8, bound={"c": "does not follow", "fc": END}),
    "squeeze": case(lambda: chain(Gate(8, 4)), IMAGE, **{"a": 8, "p0.down": 4}),
    "glu": case(lambda: chain(nn.GLU(1), z=4), IMAGE, a=4),
    "unet": case(unet, IMAGE, a=4, b=6, up=5),
    "added": case(added, IMAGE, shift=6),
    "joined": case(joined, IMAGE, a=4, b=5),
    "channel shuffle": case(lambda: chain(nn.ChannelShuffle(2), nn.ReLU()), IMAGE, a=4),
    "shuffle by views": case(lambda: chain(Shuffle(2), nn.ReLU()), IMAGE, a=4),
    "shuffled residual": case(
        lambda: Net(
            lambda s, x: s.z((lambda y: y + s.mix(y))(s.a(x))),
            a=conv(3, 8),
            mix=Shuffle(2),
            z=conv(8, 2),
        ),
        IMAGE,
        bound={"a": ""},
    ),
    "halves": case(lambda: chain(Halves(8)), IMAGE, **{"a": 4, "p0.inner": 4}),
    "pixel shuffle": case(lambda: chain(nn.PixelShuffle(2), z=2), IMAGE, a=2),
    "pixel unshuffle": case(lambda: chain(nn.PixelUnshuffle(2), z=32), IMAGE, a=8),
    "patches": case(
        lambda: Net(
            lambda s, x: s.z(F.unfold(s.a(x), 2).mean(-1)), a=conv(3, 4), z=nn.Linear(16, 2)
        ),
        IMAGE,
        a=4,
    ),
    "flatten": case(
        lambda: Net(lambda s, x: s.z(s.a(x).flatten(1)), a=conv(3, 4), z=nn.Linear(256, 2)),
        IMAGE,
        a=4,
    ),
    "auxiliary": case(Auxiliary, IMAGE, a=8, b=6, bound={"head": END, "aux": END}),
    "twice": case(
        lambda: Net(
            lambda s, x: s.z(torch.relu(s.b(torch.relu(s.b(torch.relu(s.a(x))))))),
            a=conv(3, 8),
            b=conv(8, 8),
            z=conv(8, 2),
        ),
        IMAGE,
        a=8,
    ),
    "summed": case(
        lambda: Net(
            lambda s, x: torch.stack([s.a(x).sum(1), s.b(x).sum(1)], 1), a=conv(3, 8), b=conv(3, 4)
        ),
        IMAGE,
        a=8,
        b=4,
    ),
    "mean of channels": case(
        lambda: Net(lambda s, x: s.z(s.a(x).mean(1, keepdim=True)), a=conv(3, 8), z=conv(1, 2)),
        IMAGE,
        bound={"a": "mean over it", "z": END},
    ),
}
