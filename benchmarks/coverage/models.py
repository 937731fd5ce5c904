"""The sweep's list of networks."""

from __future__ import annotations

import fnmatch
from functools import lru_cache

import models_huggingface
import models_timm
import models_torchvision
from network import Model


@lru_cache(maxsize=1)
def table() -> dict[str, Model]:
    """Every network by its name; reads the registry of torchvision, builds nothing."""
    parts = (models_torchvision, models_timm, models_huggingface)
    return {model.name: model for part in parts for model in part.models()}


def find(name: str) -> Model:
    """One network, without importing the libraries of the others."""
    library = name.partition("/")[0]
    parts = {"timm": models_timm, "huggingface": models_huggingface}
    part = parts.get(library, models_torchvision)
    return next(model for model in part.models() if model.name == name)


def matching(patterns: str) -> list[str]:
    """Names that one of several patterns matches, which commas part."""
    every = patterns.split(",")
    return [name for name in table() if any(fnmatch.fnmatch(name, one) for one in every)]
