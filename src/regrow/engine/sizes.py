"""Which attributes of modules hold sizes that change with a cut.

PyTorch's own modules are known. Others hold sizes under any name, such as the number of heads with
which a forward method reshapes: candidates are the numbers that equal a size where code of that
module gave one, and a cut is accepted only if the smaller network computes what the masked one
does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from regrow.engine.surgery import Attribute, Edits, Keep
from regrow.model.coupling.groups import Coupling
from regrow.model.walk import modules_of, named_tensors

Key: TypeAlias = "tuple[type, str, str]"  # a class, the last part of the path, an attribute
# Sizes of pixels, of texts and of the network, not of channels.
_NOT = re.compile(
    r"window|patch|kernel|stride|dilation|padd|image|img|resol|grid|depth|layer|class"
    r"|len|positions|vocab|block_size"
)


def known_sizes(
    model: nn.Module, coupling: Coupling, keep: Keep, gone: frozenset[int]
) -> Iterator[Attribute]:
    """The sizes that PyTorch's modules hold, where they change."""
    tensors = named_tensors(model)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name, dims in keep.items():
        for dim, indices in dims.items():
            shapes[name][dim] = len(indices)
    first: dict[int, str] = {}  # names under which tied weights were met
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    for path, module in modules_of(model):
        prefix = f"{path}." if path else ""
        weight = shapes.get(prefix + "weight", shapes.get(prefix + "running_mean"))
        seen = coupling.norms.get(path)
        if weight is None and isinstance(module, _NormBase | nn.GroupNorm) and seen is not None:
            channels = getattr(module, "num_features", len(seen))
            weight = [int(coupling.stays(seen[:channels], gone).sum())]
        if weight is None:
            continue
        group = coupling.convolutions.get(first.get(id(getattr(module, "weight", None)), path))
        groups = None if group is None else int(coupling.stays(group, gone).sum())
        for name, value in _sizes(module, weight, groups):
            if getattr(module, name) != value:
                yield Attribute(path, name, value)


def _sizes(module: nn.Module, weight: list[int], groups: int | None) -> Iterator[tuple[str, int]]:
    if isinstance(module, nn.modules.conv._ConvNd):
        groups = module.groups if groups is None else groups
        first, second = weight[0], weight[1] * groups
        yield "groups", groups
        yield "in_channels", first if module.transposed else second
        yield "out_channels", second if module.transposed else first
    elif isinstance(module, nn.Linear):
        yield "out_features", weight[0]
        yield "in_features", weight[1]
    elif isinstance(module, _NormBase):
        yield "num_features", weight[0]
    elif isinstance(module, nn.GroupNorm):
        yield "num_channels", weight[0]
        yield "num_groups", module.num_groups if groups is None else groups
    elif isinstance(module, nn.Embedding):
        yield "embedding_dim", weight[1]
    elif isinstance(module, nn.PReLU):
        yield "num_parameters", weight[0]


def candidates(
    model: nn.Module, coupling: Coupling, gone: frozenset[int]
) -> dict[Key, list[Attribute]]:
    """Attributes of other modules that may hold a size that changes, by class, place and name."""
    modules = dict(modules_of(model))
    wanted: dict[str, dict[int, int]] = {}
    for site in coupling.sites:
        for dim in site.dims:
            if dim is None:
                continue
            left = int(coupling.stays(dim, gone).sum())
            if left != len(dim):
                for path in _ancestors(site.module):
                    wanted.setdefault(path, {})[len(dim)] = left
    found: dict[Key, list[Attribute]] = {}
    for path, sizes in wanted.items():
        module = modules.get(path)
        if module is None or type(module).__module__.startswith("torch.nn"):
            continue
        for name, value in vars(module).items():
            new = _new(value, sizes)
            if new is not None and not name.startswith("_") and not _NOT.search(name):
                found.setdefault((type(module), path.rpartition(".")[2], name), []).append(
                    Attribute(path, name, new)
                )
    return found


def _new(value: object, sizes: Mapping[int, int]) -> int | tuple[int, ...] | None:
    if type(value) is int:
        return sizes.get(value)
    if isinstance(value, (tuple, list)) and value and all(type(x) is int for x in value):
        new = tuple(sizes.get(x, x) for x in value)
        return new if new != tuple(value) else None
    return None


def _ancestors(path: str) -> Iterator[str]:
    yield path
    for _ in range(2):
        if not path:
            return
        path = path.rpartition(".")[0]
        yield path


def choices(names: Iterable[Key], most: int = 16) -> Iterator[frozenset[Key]]:
    """Sets of candidates, the likelier ones first.

    None, for most code takes sizes from tensors; those called heads; all; all but one; one; two.
    """
    every = list(dict.fromkeys(names))
    seen: set[frozenset[Key]] = set()

    def new(one: Iterable[Key]) -> Iterator[frozenset[Key]]:
        one = frozenset(one)
        if one not in seen and len(seen) < most:
            seen.add(one)
            yield one

    yield from new(())
    yield from new([each for each in every if "head" in each[2]])
    yield from new(every)
    for each in every:
        yield from new(set(every) - {each})
    for each in every:
        yield from new({each})
    for i, a in enumerate(every):
        for b in every[i + 1 :]:
            yield from new({a, b})


def with_attributes(edits: Edits, more: Iterable[Attribute]) -> Edits:
    """Edits with further attributes."""
    return Edits(edits.shapes, edits.keep, (*edits.attributes, *more))
