"""Runs packed networks on NumPy arrays, without PyTorch."""

from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.network import Network, instruction_sets, load

__all__ = ["Network", "RuntimeFileError", "instruction_sets", "load"]
