"""regrow: a random half of every group that it offers; what it refuses stays, with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from network import SEED, Example, Model
from pruned import Pruned, everything
from torch import Tensor, nn

import regrow
from regrow.model.coupling.groups import couple


class Regrow:
    """The tool as it is; it has no settings."""

    def __init__(self) -> None:
        self._keep: dict[str, Tensor] = {}
        self._groups: Any = None
        self._shrunk: Any = None

    def warm_up(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).eval()
        self.prune(self.graph(model, (torch.zeros(1, 3, 8, 8),)))

    def graph(self, model: nn.Module, example: Example, entry: Model | None = None) -> Any:
        return model, example, regrow.groups(model, example)

    def untried(self, model: nn.Module, example: Example) -> None:
        """The graph alone, without the trial of a cut, as the other tool finds its own."""
        couple(model, example)

    def prune(self, graph: Any) -> Pruned:
        model, example, groups = graph
        generator = torch.Generator().manual_seed(SEED)
        self._groups, self._keep = groups, {}
        for group in groups:
            order = torch.randperm(len(group), generator=generator)
            self._keep[group.name] = order >= len(group) // 2
        self._shrunk = regrow.shrink(model, example, self._keep, groups=groups)
        kept = everything(model)
        named = dict(model.named_parameters(remove_duplicate=False))
        for name, axes in self._shrunk.index_map.keep.items():
            for other, parameter in named.items():
                if parameter is named.get(name):
                    for axis, places in axes.items():
                        kept[other][axis] = places
        units = sum(int((~keep).sum()) for keep in self._keep.values())
        refused = {bound.layer: bound.reason for bound in groups.bound}
        return Pruned(self._shrunk.model, kept, len(self._keep), units, refused)

    def masked(self, model: nn.Module) -> nn.Module:
        """Its own masked network, which must be no other than the one of the criteria."""
        return regrow.masked(model, self._keep, groups=self._groups)

    def save(self, pruned: Pruned, folder: str) -> None:
        regrow.save_shrunk(self._shrunk, Path(folder) / "shrunk")

    def load(self, entry: Model, folder: str) -> nn.Module:
        return regrow.load_shrunk(entry.build().eval(), Path(folder) / "shrunk")
