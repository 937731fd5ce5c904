"""Every classification, segmentation and video model of torchvision, from its own registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from network import Model
from torch import Tensor, nn

# Families by the first pattern that matches; the rest are families of their own name.
FAMILIES = {
    r"resnext": "resnext",
    r"wide_resnet": "wide_resnet",
    r"resnet": "resnet",
    r"vgg.*_bn": "vgg_bn",
    r"vgg": "vgg",
    r"densenet": "densenet",
    r"efficientnet_v2": "efficientnet_v2",
    r"efficientnet": "efficientnet",
    r"regnet_x": "regnet_x",
    r"regnet_y": "regnet_y",
    r"convnext": "convnext",
    r"mnasnet": "mnasnet",
    r"mobilenet_v3": "mobilenet_v3",
    r"shufflenet": "shufflenet_v2",
    r"squeezenet": "squeezenet",
    r"swin_v2": "swin_v2",
    r"swin": "swin",
    r"vit_": "vit",
}
SEGMENTATION = ("fcn", "deeplabv3", "lraspp")
# Attention over windows or positions has the size that it was made for; elsewhere the smallest
# image that leaves each stage a map of at least two pixels.
SIZES = {r"vit_|maxvit|swin": 224, r"inception|googlenet|alexnet": 96, r".*": 64}
CLIPS = {r"mvit|s3d": (16, 224), r"swin3d": (8, 112), r".*": (8, 64)}
AUXILIARY = {  # side outputs are for training alone and not part of a network in evaluation mode
    r"inception_v3|googlenet": {"aux_logits": False, "init_weights": False},
    r"fcn|deeplabv3": {"aux_loss": None, "weights_backbone": None},
    r"lraspp": {"weights_backbone": None},
}


def models() -> Iterator[Model]:
    """All of them, by part of the library and name."""
    import torchvision

    for part in (torchvision.models, torchvision.models.segmentation, torchvision.models.video):
        video = part is torchvision.models.video
        for name in sorted(torchvision.models.list_models(module=part)):
            family = _first(FAMILIES, name) or name
            for stem in SEGMENTATION:
                family = stem if name.startswith(stem) else family
            classes = 21 if name.startswith(SEGMENTATION) else 400 if video else 1000
            yield Model(
                name=f"torchvision/{name}",
                family=f"torchvision {'video ' if video else ''}{family}",
                build=partial(_build, name),
                example=partial(_clip if video else _image, name),
                classes=classes,
            )


def _build(name: str) -> nn.Module:
    import torchvision

    options: dict[str, Any] = _first(AUXILIARY, name) or {}
    return torchvision.models.get_model(name, weights=None, **options)


def _image(name: str) -> tuple[Tensor, ...]:
    size = _first(SIZES, name)
    return (torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)),)


def _clip(name: str) -> tuple[Tensor, ...]:
    frames, size = _first(CLIPS, name)
    return (torch.randn(1, 3, frames, size, size, generator=torch.Generator().manual_seed(0)),)


def _first(table: dict[str, Any], name: str) -> Any:
    return next((value for pattern, value in table.items() if re.match(pattern, name)), None)
