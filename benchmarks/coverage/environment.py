"""torchvision, timm and transformers beside a CPU build of PyTorch.

torchvision's wheel holds operators that are compiled against a CUDA build. Beside a CPU build its
library does not load, and the import fails because two operators are unknown; no model here calls
them. So they are declared first. timm and transformers import torchvision where they find it, and
need the same.
"""

from __future__ import annotations

import logging
import os
import warnings
from importlib.metadata import PackageNotFoundError, version

import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
PACKAGES = ("torch", "torchvision", "timm", "transformers", "torch-pruning")

_declared: list[torch.library.Library] = []  # a library's operators live as long as it does


def prepare() -> None:
    """Declares torchvision's operators where its own library cannot; forbids any network access."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if _declared or hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    for schema in OPERATORS:
        library.define(schema)
    _declared.append(library)


def versions(tool: str) -> dict[str, str]:
    """The versions of what a case's outcome depends on; one tool's do not matter to the other."""
    names = [name for name in PACKAGES if tool != "regrow" or name != "torch-pruning"]
    if tool == "regrow":
        names.append("regrow")
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from source"
