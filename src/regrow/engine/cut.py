"""Networks without the units that are not kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.names import unwrap
from regrow.engine.groups import Groups
from regrow.engine.sizes import candidates, choices, known_sizes, with_attributes
from regrow.engine.surgery import Edits, IndexMap, Keep
from regrow.model.coupling.groups import at_rest, call
from regrow.model.coupling.nests import tensors_of
from regrow.model.walk import named_tensors

_CLOSE = 1e-4  # of the largest output, or a few roundings where that is more


@dataclass(frozen=True)
class Shrunk:
    """A smaller network, and how it came about.

    Attributes:
        model: with tensors that are physically smaller.
        index_map: by which optimiser state, averages and masks follow.
        edits: by which a fresh network of the class becomes as small.
    """

    model: nn.Module
    index_map: IndexMap
    edits: Edits


def masked(model: nn.Module, keep: Mapping[str, Tensor], *, groups: Groups) -> nn.Module:
    """A copy with zeros for all parameters of the units that are not kept.

    Raises:
        RegrowError: the groups are of another network.
    """
    groups.check_of(unwrap(model))
    made = copy.deepcopy(unwrap(model))
    parameters = dict(made.named_parameters(remove_duplicate=False))
    kept = groups.kept(groups.gone(keep))
    with torch.no_grad():
        for name in kept.keys() & parameters.keys():
            for dim, indices in kept[name].items():
                parameters[name].index_fill_(dim, others(parameters[name], dim, indices), 0)
    return made


def others(tensor: Tensor, dim: int, indices: Tensor) -> Tensor:
    """All other indices of a dimension."""
    rest = torch.ones(tensor.shape[dim], dtype=torch.bool)
    rest[indices] = False
    return rest.nonzero().flatten().to(tensor.device)


def possible_edits(
    model: nn.Module, groups: Groups, gone: frozenset[int], kept: Keep
) -> Iterator[Edits]:
    """Edits by which units go: the same tensors, with sizes that other modules may hold.

    Args:
        model: the network.
        groups: of it.
        gone: classes.
        kept: as `groups.kept` of them.
    """
    coupling, tensors = groups.coupling, named_tensors(model)
    shapes = {name: tuple(tensors[name].shape) for name in kept}
    plain = Edits(shapes, kept, tuple(known_sizes(model, coupling, kept, gone)))
    possible = candidates(model, coupling, gone)
    for choice in choices(possible):
        yield with_attributes(plain, [each for key in choice for each in possible[key]])


def computes(model: nn.Module, example: Any, expected: Sequence[Tensor]) -> bool:
    """Whether a network gives these outputs, to rounding."""
    try:
        return _agree(outputs_of(model, example), expected)
    except Exception:  # code may fail in any way where sizes do not fit
        return False


def outputs_of(model: nn.Module, example: Any) -> list[Tensor]:
    """A network's floating-point outputs, in evaluation mode."""
    with at_rest(model):
        return [each for each in tensors_of(call(model, example)) if each.is_floating_point()]


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    if [each.shape for each in found] != [each.shape for each in expected]:
        return False
    return all(
        bool(((a - b).abs() <= _closeness(b.dtype) * b.abs().max() + 1e-7).all())
        for a, b in zip(found, expected, strict=True)
    )


def _closeness(dtype: torch.dtype) -> float:
    return max(_CLOSE, 8 * torch.finfo(dtype).eps)
