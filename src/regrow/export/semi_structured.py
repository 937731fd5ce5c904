"""2:4 weights as PyTorch's semi-structured sparse tensors, which sparse tensor cores multiply."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError, unknown
from regrow.core.names import unwrap
from regrow.model.inventory import inventory, weights_of

# What both of PyTorch's backends accept: cuSPARSELt asks for 16 and 16, CUTLASS for more.
_ROWS, _COLUMNS = 32, 64
_DTYPES = (torch.float16, torch.bfloat16)
_ONLY = "give the masks of eligible weights only, and the others stay dense"


def to_semi_structured(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model for inference on a GPU, its 2:4 linear weights semi-structured.

    Every weight whose mask removes something is converted; weights without a mask, or with a full
    one, stay dense. The weights of the copy are not trainable, and belong into no file.

    Args:
        model: in half precision, on a CUDA device of compute capability 8.0 or higher.
        masks: bool keep masks (out, in) by clean weight name, such as `Pruning.masks`.

    Raises:
        RegrowError: a weight that cannot be converted, by name: unknown, of no `nn.Linear`, not in
            float16 or bfloat16, rows no multiple of 32 or columns of 64, the mask not 2:4, removed
            entries not zero, or not on such a device; or no mask removes anything.

    Source: Mishra et al. 2021, "Accelerating sparse deep neural networks"; PyTorch's
    `torch.sparse.to_sparse_semi_structured`.
    """
    inner = unwrap(model)
    entries = inventory(inner)
    weights = weights_of(inner, entries)
    chosen = [name for name, mask in masks.items() if not bool(mask.all())]
    if not chosen:
        raise RegrowError("no mask removes anything; prune with the pattern 'n_of_m' first.")
    for name in chosen:
        if name not in weights:
            raise unknown("weight for a keep mask", name, weights)
        fault = _fault(_owner(inner, name), weights[name].detach(), masks[name])
        if fault is not None:
            raise RegrowError(f"{name} cannot be semi-structured: {fault}.")
    fresh = copy.deepcopy(inner)
    aliases = {entry.name: entry.aliases for entry in entries}
    for name in chosen:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor")
            sparse = torch.sparse.to_sparse_semi_structured(weights[name].detach().contiguous())
        for path in (name, *aliases[name]):
            _owner(fresh, path).weight = nn.Parameter(sparse, requires_grad=False)
    return fresh


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _fault(owner: nn.Module, weight: Tensor, mask: Tensor) -> str | None:
    """Why a weight cannot be converted, and what to do; None if it can."""
    shape = tuple(weight.shape)
    if type(owner) is not nn.Linear:  # Those of attention are read in ways of its own.
        return f"it belongs to a {type(owner).__name__}, and only nn.Linear can be; {_ONLY}"
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        return f"its mask is {mask.dtype} of shape {tuple(mask.shape)}; it must be bool of {shape}"
    if shape[0] % _ROWS or shape[1] % _COLUMNS:
        return f"its shape {shape} is no multiple of ({_ROWS}, {_COLUMNS}); {_ONLY}"
    if int(mask.unflatten(1, (-1, 4)).sum(-1).max()) > 2:
        return f"its mask keeps more than 2 of 4 inputs somewhere; prune with 2:4, or {_ONLY}"
    if bool(weight[~mask.to(weight.device)].any()):
        return "entries that its mask removes are not zero; give the masks of this very model"
    if weight.dtype not in _DTYPES:
        return f"it is {weight.dtype}; convert the model with .half() or .bfloat16()"
    if weight.device.type != "cuda":
        return f"it is on {weight.device.type!r}, and only CUDA devices can; move the model there"
    if torch.cuda.get_device_capability(weight.device) < (8, 0):
        return "its device has no sparse tensor cores; use one of compute capability 8.0 or higher"
    return None
