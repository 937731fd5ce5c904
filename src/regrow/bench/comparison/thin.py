"""A network of the same form with fewer channels in every layer: the control of a cut one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regrow.bench.tasks import MakeModel
from regrow.core.errors import RegrowError
from regrow.engine.choose import choose
from regrow.engine.cut_out import cut_out
from regrow.engine.shrink import find_groups


def thinned(make: MakeModel, example: Callable[[], Tensor], share: float, of: str) -> MakeModel:
    """Makes networks that have, of a network's parameters or multiply-adds, at most a share.

    Widths are those of the network times one factor; weights are drawn anew, as its layers
    initialise themselves at these widths.

    Args:
        make: makes the network.
        example: gives one input; called when a network is made.
        share: in (0, 1].
        of: "parameters", "macs" or "units".

    Raises:
        RegrowError: so small it cannot be made.
    """

    def thin(generator: torch.Generator) -> nn.Module:
        model = make(generator).eval()
        given = example()
        groups = find_groups(model, given)
        keep = choose(model, groups, 1 - share, of=of, scope="local")
        done = cut_out(model, given, groups, keep)
        if done is None:
            raise RegrowError(
                f"{type(model).__name__} cannot be made thinner: its code does not follow; leave "
                "this model out, or give the task a thin one of its own."
            )
        torch.manual_seed(generator.initial_seed())
        for module in done.model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        return done.model.train()

    return thin
