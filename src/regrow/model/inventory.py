"""Which weights of a network can be pruned: the one denominator of every sparsity."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError, unknown
from regrow.core.names import unwrap

DENOMINATOR = "convolution and linear weights"

_CONV = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# Modules whose linear weights are bare parameters rather than Linear children.
_BARE = {
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
}


@dataclass(frozen=True)
class Entry:
    """One prunable weight.

    Attributes:
        name: its clean name in the model's state dict; of tied weights the first.
        shape: (out, in, ...) as PyTorch stores it.
        kind: "conv" or "linear"; "member" for any parameter of a coupled group.
        aliases: further state-dict names of the same (tied) parameter.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    aliases: tuple[str, ...] = ()

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def layer(self) -> str:
        """The module's name."""
        return _layer(self.name)

    @property
    def names(self) -> tuple[str, ...]:
        """What globs may call it: weight and layer, by each of its names."""
        every = (self.name, *self.aliases)
        return (*every, *map(_layer, every))


@dataclass(frozen=True)
class Inventory:
    """The prunable weights in the order of the model's modules."""

    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def total(self) -> int:
        """Number of weights, tied ones counted once."""
        return sum(entry.numel for entry in self.entries)

    def joined(self, other: Inventory) -> Inventory:
        """These, and those of another inventory that are not among them."""
        names = {entry.name for entry in self}
        return Inventory((*self, *(entry for entry in other if entry.name not in names)))

    def matching(self, globs: Sequence[str]) -> frozenset[str]:
        """Names of the weights that any glob matches, by weight name or by layer name.

        Raises:
            RegrowError: a glob matches nothing.
        """
        found: set[str] = set()
        for glob in globs:
            hits = {
                e.name
                for e in self.entries
                if any(fnmatch.fnmatchcase(name, glob) for name in e.names)
            }
            if not hits:
                raise unknown("layer", glob, [e.layer for e in self.entries])
            found |= hits
        return frozenset(found)


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def inventory(model: nn.Module) -> Inventory:
    """The convolution and linear weights of a model; wrappers (compile, DDP) are looked through.

    Raises:
        RegrowError: there is none, a weight is not initialised yet (lazy modules), is computed by
            a parametrisation.
    """
    model = unwrap(model)
    found: dict[int, Entry] = {}
    for name, weight, kind, module in _weights(model):
        _check(name, weight, module)
        if not weight.numel():  # such as Linear(0, 4)
            continue
        known = found.get(id(weight))
        found[id(weight)] = (
            Entry(name, tuple(weight.shape), kind)
            if known is None
            else Entry(known.name, known.shape, known.kind, (*known.aliases, name))
        )
    if not found:
        raise RegrowError(
            f"{type(model).__name__} has no convolution or linear weights, so nothing can be "
            "pruned; pass the network itself, not a loss or a container of functions."
        )
    return Inventory(tuple(found.values()))


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that no score can rank.

    Raises:
        RegrowError: a weight holds NaN or infinity, or has no values.
    """
    for name, weight in weights.items():
        if weight.is_meta:
            raise RegrowError(
                f"{name} is on the meta device and has no values; load a checkpoint, or make the "
                "network on another device."
            )
        bad = int((~torch.isfinite(weight.detach())).sum())
        if bad:
            raise RegrowError(
                f"{name} of shape {tuple(weight.shape)} holds {bad} NaN or infinite values; load "
                "a sound checkpoint or lower the learning rate before pruning."
            )


def weights_of(model: nn.Module, entries: Inventory) -> dict[str, nn.Parameter]:
    """The live parameters by clean name.

    Raises:
        RegrowError: the model lacks one, or has it in another shape.
    """
    parameters = dict(unwrap(model).named_parameters(remove_duplicate=False))
    for entry in entries:
        if entry.name not in parameters:
            raise unknown("weight", entry.name, parameters)
        if tuple(parameters[entry.name].shape) != entry.shape:
            raise RegrowError(
                f"{entry.name} has shape {tuple(parameters[entry.name].shape)}, but the masks "
                f"were made for {entry.shape}; pass the same network or a copy of it."
            )
    return {entry.name: parameters[entry.name] for entry in entries}


def names_of(model: nn.Module) -> dict[int, str]:
    """Names of the inventory by `id` of the weight, of any network, even without such weights."""
    found: dict[int, str] = {}
    for name, weight, _, _ in _weights(model):
        found.setdefault(id(weight), name)
    return found


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor, str, nn.Module]]:
    """Name, weight, kind and module, under each name that a weight has."""
    for path, module in model.named_modules(remove_duplicate=False):
        for field, kind in _weight_fields(module):
            weight = getattr(module, field, None)
            if weight is not None:
                yield (f"{path}.{field}" if path else field), weight, kind, module


def _weight_fields(module: nn.Module) -> Iterator[tuple[str, str]]:
    if isinstance(module, _CONV):
        yield "weight", "conv"
    elif isinstance(module, nn.Linear):
        yield "weight", "linear"
    for owner, fields in _BARE.items():
        if isinstance(module, owner):
            yield from ((field, "linear") for field in fields)


def _check(name: str, weight: Tensor, module: nn.Module) -> None:
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise RegrowError(f"{name} has no shape yet; run one forward pass before pruning.")
    if not isinstance(weight, nn.Parameter):
        raise RegrowError(
            f"{name} of {type(module).__name__} is computed, not stored (a parametrisation or "
            "weight norm); remove it first, for instance with "
            "torch.nn.utils.parametrize.remove_parametrizations."
        )
