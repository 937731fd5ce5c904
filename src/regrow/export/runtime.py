"""The optional second distribution, found or asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from regrow.core.errors import RegrowError


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
