"""The smaller network, found and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from regrow.core.allocator import give_back
from regrow.core.errors import RegrowError
from regrow.engine.cut import Shrunk, computes, masked, outputs_of, possible_edits
from regrow.engine.groups import Groups
from regrow.engine.surgery import IndexMap, apply
from regrow.engine.trial import Trial


def cut_out(
    model: nn.Module, example: Any, groups: Groups, keep: Mapping[str, Tensor]
) -> Shrunk | None:
    """The smaller network, if with some attributes it computes what the masked one does.

    Where modules may hold sizes, those are tried first that fit with random weights and inputs:
    with an example of zeros, or a layer that starts at zero, others may seem to.

    Raises:
        RegrowError: the groups are of another network; or it gives back no numbers that could be
            compared.
    """
    groups.check_of(model)
    gone = groups.gone(keep)
    possible = list(possible_edits(model, groups, gone, groups.kept(gone)))
    if len(possible) > 1:
        trial = Trial(model, example)
        if trial.follows(groups, keep):
            possible.insert(0, possible.pop(trial.fit))
        del trial
        give_back()
    expected = outputs_of(masked(model, keep, groups=groups), example)
    if not expected:
        raise RegrowError(
            f"{type(model).__name__} gives back no floating-point numbers, so a smaller network "
            "could not be compared with it; cut the part of it that does."
        )
    give_back()
    for edits in possible:
        made = apply(model, edits)
        if computes(made, example, expected):
            return Shrunk(made, IndexMap(edits.keep, edits.shapes), edits)
        del made  # or the next would lie beside it
    return None
