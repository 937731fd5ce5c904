"""The optional second distribution, found or asked for."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.core.errors import RegrowError
from regrow.export.sections import DTYPES

TORCH = {name: getattr(torch, name) for name in DTYPES}
"""PyTorch's dtypes by the names that both formats use."""


def runtime() -> ModuleType:
    """The package `regrow_runtime`, whole.

    Raises:
        RegrowError: it is not installed, or its native part does not load here.
    """
    try:
        package = importlib.import_module("regrow_runtime")
        importlib.import_module("regrow_runtime.file")
        importlib.import_module("regrow_runtime.network")
    except ImportError as error:
        raise RegrowError(
            f"this needs the runtime, which is not installed ({error}); install it with "
            '`pip install "regrow[runtime]"` (from a checkout: `pip install ./runtime`); without a '
            "ready-made wheel that needs a C++17 compiler."
        ) from error
    return package


def restored(array: Any) -> Tensor:
    """What a stored array of the deploy file stands for, in the dtype that the model had."""
    values = np.array(array.values)
    if array.scales is not None or array.levels is not None:
        values = array.floats()
    elif array.dtype == "bfloat16":
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16).to(TORCH[array.origin])
    return torch.from_numpy(values).to(TORCH[array.origin])
