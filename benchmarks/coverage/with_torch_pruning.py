"""torch-pruning, set up as its own examples do it.

Common to all settings: magnitude importance, half of the channels, every layer on its own, the
last layers (as many outputs as classes) left alone, attention in plain operations, and the number
of heads given for every attention module that can be recognised. After pruning, what its examples
repair is repaired: sizes of heads and of attention, torchvision's `hidden_dim`, static shapes.

A network is tried in up to four settings, and the best result counts:

    dims     half of every head's dimensions (its examples for timm, torchvision and Swin)
    heads    half of all heads (its examples for BERT and language models)
    dims, norms left / heads, norms left
             groups that a normalisation over channels reads stay whole: the `bottleneck` option of
             its example for ViT, for any network. Removing such a channel changes the mean and the
             variance of the others, so that the network cannot equal a masked one.

A setting that would not differ from the one before is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from network import Example, Model
from pruned import Kept, Pruned, everything
from repairs import attention_layers, repair
from torch import Tensor, nn
from torch_pruning.pruner.function import BasePruningFunc

HALF = 0.5
OVER_CHANNELS = ("LayerNorm", "GroupNorm", "RMSNorm", "RmsNorm", "LayerScaleNorm")


class TorchPruning:
    """The tool in one setting."""

    def __init__(self, setting: str) -> None:
        self.heads = setting.startswith("heads")
        self.leave_norms = setting.endswith("norms left")

    def warm_up(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
        for group in _pruner(model, (torch.zeros(1, 3, 8, 8),), [], {}, False).step(True):
            group.prune()

    def graph(self, model: nn.Module, example: Example, entry: Model) -> Any:
        ignored = [layer for layer in model.modules() if _outputs(layer) == entry.classes]
        pruner = _pruner(model, example, ignored, attention_layers(model), self.heads)
        if self.heads and not pruner.num_heads:
            raise SettingDoesNotDiffer("no heads")
        if self.leave_norms:
            read = list(_read_by_norms(pruner))
            if not read:
                raise SettingDoesNotDiffer("no normalisation over channels")
            pruner.ignored_layers.extend(read)
        return pruner

    def prune(self, graph: Any) -> Pruned:
        groups = units = 0
        _start_record(graph.model)
        for group in graph.step(interactive=True):
            groups += 1
            units += len(group[0].idxs)
            group.prune()
        kept = _end_record(graph.model)
        repair(graph.model, graph)
        return Pruned(graph.model, kept, groups, units)

    def save(self, pruned: Pruned, folder: str) -> None:
        """The whole module pickled; its second way, the modules' own attributes, if that fails."""
        try:
            torch.save(pruned.model, Path(folder) / "module.pt")
        except Exception:
            (Path(folder) / "module.pt").unlink(missing_ok=True)
            torch.save(tp.state_dict(pruned.model), Path(folder) / "state.pt")

    def load(self, entry: Model, folder: str) -> nn.Module:
        whole = Path(folder) / "module.pt"
        if whole.exists():
            return torch.load(whole, weights_only=False)
        state = torch.load(Path(folder) / "state.pt", weights_only=False)
        return tp.load_state_dict(entry.build().eval(), state_dict=state)


class SettingDoesNotDiffer(Exception):
    """There is nothing in the network that the setting is about."""


def _pruner(
    model: nn.Module,
    example: Example,
    ignored: list[nn.Module],
    heads: dict[nn.Module, int],
    whole_heads: bool,
) -> Any:
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    inside = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tp.pruner.BasePruner(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=HALF,
            ignored_layers=ignored,
            num_heads=heads,
            prune_num_heads=whole_heads,
            prune_head_dims=not whole_heads,
            head_pruning_ratio=HALF if whole_heads else 0.0,
            in_channel_groups={},
            out_channel_groups=dict(inside),
            output_transform=lambda out: getattr(out, "logits", out),
        )


def _outputs(layer: nn.Module) -> int | None:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.modules.conv._ConvNd) else None


def _read_by_norms(pruner: Any) -> Iterator[nn.Module]:
    """The first layer of every group that a normalisation over channels is part of."""
    owners = {
        id(parameter): module
        for module in pruner.model.modules()
        for parameter in module.parameters(recurse=False)
    }
    for group in pruner.DG.get_all_groups(pruner.ignored_layers, pruner.root_module_types):
        members = [dependency.target.module for dependency, _ in group]
        kinds = {type(owners.get(id(m), m)).__mro__ for m in members}
        names = {kind.__name__ for mro in kinds for kind in mro}
        if any(norm in name for norm in OVER_CHANNELS for name in names):
            yield members[0]


# Every tensor that torch-pruning shortens goes through one function. Beside its work it takes along
# which of the original places are left, since a layer may be shortened several times over.
_shorten = BasePruningFunc._prune_parameter_and_grad


def _recording(self: Any, weight: Tensor, keep_idxs: Any, pruning_dim: int) -> Tensor:
    short = _shorten(self, weight, keep_idxs, pruning_dim)
    if not hasattr(weight, "places"):  # computed by a parametrization: its size will tell
        return short
    places = list(weight.places)
    axis = pruning_dim % weight.dim()
    places[axis] = places[axis][torch.as_tensor(keep_idxs, dtype=torch.int64)]
    short.places = places  # type: ignore[attr-defined]
    return short


def _start_record(model: nn.Module) -> None:
    kept = everything(model)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameter.places = kept[name]  # type: ignore[attr-defined]
    BasePruningFunc._prune_parameter_and_grad = _recording


def _end_record(model: nn.Module) -> Kept:
    BasePruningFunc._prune_parameter_and_grad = _shorten
    kept = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        kept[name] = parameter.places  # type: ignore[attr-defined]
    for parameter in model.parameters():
        del parameter.places  # type: ignore[attr-defined]
    return kept
