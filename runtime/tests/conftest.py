"""The runtime's tests need the runtime, which needs a compiler."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("regrow_runtime") is None else []
