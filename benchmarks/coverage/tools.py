"""The tools by name; each is imported only where it is used."""

from __future__ import annotations

import importlib
import os

import models_huggingface
from pruned import Tool

# A tool's settings, in the order in which they are tried; the best result counts.
SETTINGS: dict[str, tuple[str, ...]] = {
    "regrow": ("default",),
    "torch_pruning": ("dims", "heads", "dims, norms left", "heads, norms left"),
}


def imported(name: str) -> None:
    """Import what a tool's cases need, once for all processes that are forked from this one."""
    if name == "torch_pruning":
        os.environ["TIMM_FUSED_ATTN"] = "0"  # as its example for timm does; read at import
    for library in ("torch._dynamo", "torchvision", "timm", "transformers", f"with_{name}"):
        importlib.import_module(library)


def tool(name: str, setting: str) -> Tool:
    """Call it before any network is built."""
    if name == "regrow":
        from with_regrow import Regrow

        return Regrow()
    os.environ["TIMM_FUSED_ATTN"] = "0"
    models_huggingface.attention = "eager"
    from with_torch_pruning import TorchPruning

    return TorchPruning(setting)
