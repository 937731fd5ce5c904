"""Removed units that return to a smaller network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.names import unwrap
from regrow.engine.cut import Shrunk
from regrow.engine.cut_out import cut_out
from regrow.engine.groups import Groups
from regrow.model.walk import named_tensors


def grow(
    shrunk: Shrunk,
    dense: nn.Module,
    example: Any,
    keep: Mapping[str, Tensor],
    *,
    groups: Groups,
) -> Shrunk:
    """A network in which removed units have returned, with the values that they had.

    Args:
        shrunk: the smaller network, as it has been trained since.
        dense: the network before the cut, which keeps the removed units' weights.
        example: as for `regrow.groups`.
        keep: which units live then, as of `choose` with `alive`; others may go in exchange.
        groups: of the dense network.

    Returns:
        a network with edits and index map from the dense one, so that it is saved and loaded as
        any other. Units that stay keep their present values; between a unit that stays and one
        that returns, weights are the dense network's.

    Raises:
        RegrowError: the smaller network is not of the dense one, or `keep` does not fit.

    Source: the structured variant of bidirectional pruning-regrowth, arXiv 2511.11675 (2025).
    """
    whole = copy.deepcopy(unwrap(dense))
    small = named_tensors(unwrap(shrunk.model))
    with torch.no_grad():
        for name, tensor in named_tensors(whole).items():
            if name not in small:
                raise RegrowError(f"the smaller network is of another one: it has no {name}.")
            kept = shrunk.index_map.keep.get(name, {})
            places = [kept.get(dim, torch.arange(size)) for dim, size in enumerate(tensor.shape)]
            if tuple(small[name].shape) != tuple(map(len, places)):
                raise RegrowError(
                    f"the smaller network is of another one: {name} has shape "
                    f"{tuple(small[name].shape)} there and would have {tuple(map(len, places))}."
                )
            if kept:
                grid = torch.meshgrid(*(p.to(tensor.device) for p in places), indexing="ij")
                tensor[grid] = small[name].to(tensor.dtype)
            else:
                tensor.copy_(small[name])
    done = cut_out(whole, example, groups, keep)
    if done is None:
        raise RegrowError("the network's code does not follow this choice of units; see `shrink`.")
    return done
