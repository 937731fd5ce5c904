"""Cutting removed units out of a network: a new, smaller network, and the edits as data.

Edits name, for tensors, the indices that stay in each dimension, and for modules, the attributes
that hold sizes. Applied to a fresh network of the same class they give the smaller one again;
nothing is executed from a file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.names import unwrap
from regrow.engine.stand_ins import substitute
from regrow.model.walk import named_tensors

_LARGE = 1 << 14  # numbers
_PIECES = 4
Keep = Mapping[str, Mapping[int, Tensor]]
"""By tensor and dimension: the indices that stay, ascending."""


@dataclass(frozen=True)
class Attribute:
    """A size that a module keeps as a number or in a tuple.

    Attributes:
        module: its path.
        name: of the attribute.
        value: the new one: an int, or a list of ints for a tuple or list.
    """

    module: str
    name: str
    value: int | tuple[int, ...]


@dataclass(frozen=True)
class Edits:
    """What changes from a network to the smaller one.

    Attributes:
        shapes: of the tensors before.
        keep: the indices that stay, of the tensors that lose any.
        attributes: the sizes that modules hold; PyTorch's layers with a size of 0 are replaced,
            see `stand_ins`.
    """

    shapes: Mapping[str, tuple[int, ...]]
    keep: Keep
    attributes: tuple[Attribute, ...]

    def json(self) -> dict[str, Any]:
        """As plain data."""
        tensors = {
            name: {
                "shape": list(self.shapes[name]),
                "keep": {str(dim): indices.tolist() for dim, indices in dims.items()},
            }
            for name, dims in self.keep.items()
        }
        attributes = [
            {
                "module": each.module,
                "name": each.name,
                "value": each.value if isinstance(each.value, int) else list(each.value),
            }
            for each in self.attributes
        ]
        return {"tensors": tensors, "attributes": attributes}

    @classmethod
    def of(cls, data: Any) -> Edits:
        """The inverse of `json`, for data from anywhere.

        Raises:
            RegrowError: it has another form.
        """
        try:
            tensors, given = data["tensors"], data["attributes"]
            shapes = {str(n): tuple(_whole(x) for x in t["shape"]) for n, t in tensors.items()}
            keep = {
                str(name): {int(dim): _indices(kept) for dim, kept in one["keep"].items()}
                for name, one in tensors.items()
            }
            attributes = tuple(
                Attribute(str(each["module"]), str(each["name"]), _size(each["value"]))
                for each in given
            )
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            raise RegrowError(f"the edits are damaged: {type(error).__name__}: {error}.") from error
        return cls(shapes, keep, attributes)


def apply(model: nn.Module, edits: Edits) -> nn.Module:
    """A copy of a network with edits performed; the network is left as it is.

    Raises:
        RegrowError: the edits are of another network; the first difference is named.
    """
    state = named_tensors(model)
    memo: dict[int, Any] = {}
    for name, dims in edits.keep.items():
        _check(name, edits, state, model)
        old = state[name]
        new = cut(old.detach(), dims)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        known = memo.get(id(old))
        memo[id(old)] = new if known is None else known
    made = copy.deepcopy(model, memo)
    for each in edits.attributes:
        module = _module(made, each)
        value = getattr(module, each.name)
        if isinstance(each.value, int):
            setattr(module, each.name, each.value)
        else:
            setattr(module, each.name, type(value)(each.value))
    substitute(made, (each.module for each in edits.attributes if each.value == 0))
    return made


def cut(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """The entries of a tensor at the indices that stay."""
    for dim, indices in dims.items():
        tensor = _select(tensor, dim, indices)
    return tensor.clone() if not dims else tensor


def _select(tensor: Tensor, dim: int, indices: Tensor) -> Tensor:
    """What stays in one dimension; by pieces, which is faster, where it is in few."""
    if tensor.numel() >= _LARGE and len(indices) and tensor.is_contiguous():
        ends = (indices.diff() != 1).nonzero().flatten().tolist()
        if len(ends) <= _PIECES:
            starts = [0, *(end + 1 for end in ends)]
            lengths = [b - a for a, b in zip(starts, [*starts[1:], len(indices)], strict=True)]
            firsts = indices[starts].tolist()
            pieces = [tensor.narrow(dim, *each) for each in zip(firsts, lengths, strict=True)]
            return torch.cat(pieces, dim)
    return tensor.index_select(dim, indices.to(tensor.device))


@dataclass(frozen=True)
class IndexMap:
    """By which everything that has the shape of a tensor follows it.

    Attributes:
        keep: the indices that stay, of the tensors that lose any.
        shapes: of those tensors before.
    """

    keep: Keep
    shapes: Mapping[str, tuple[int, ...]]

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """What stays of a tensor that belongs to a parameter, such as a moment or a mask.

        Raises:
            RegrowError: it has not the parameter's shape.
        """
        if name not in self.keep:
            return tensor
        if tuple(tensor.shape) != self.shapes[name]:
            raise RegrowError(
                f"{name} had shape {self.shapes[name]}; got a tensor of {tuple(tensor.shape)}."
            )
        return cut(tensor, self.keep[name])

    def optimizer_state(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
        """The optimiser's state dict, for a new one over the smaller network's parameters.

        Args:
            optimizer: over the parameters of the network before the cut.
            model: that network.

        Raises:
            RegrowError: it optimises a parameter that the network does not have, or keeps state of
                another shape than the parameter's.
        """
        names = {id(p): name for name, p in unwrap(model).named_parameters()}
        state = optimizer.state_dict()
        order = [p for group in optimizer.param_groups for p in group["params"]]
        found, gone = dict(state, state=dict(state["state"])), set()
        for index, parameter in enumerate(order):
            if id(parameter) not in names:
                raise RegrowError(
                    f"the optimizer has a parameter of shape {tuple(parameter.shape)} that the "
                    "network has not; pass the network that it was made for."
                )
            name = names[id(parameter)]
            if any(not len(indices) for indices in self.keep.get(name, {}).values()):
                found["state"].pop(index, None)
                gone.add(index)
                continue
            values = state["state"].get(index)
            if values is None:
                continue
            for key, value in values.items():
                shape = tuple(value.shape) if isinstance(value, Tensor) else ()
                if name in self.keep and shape not in ((), (1,), tuple(parameter.shape)):
                    raise RegrowError(
                        f"{type(optimizer).__name__} keeps {key!r} of {name} in another shape than "
                        "the parameter's, which no cut can follow; start the optimizer anew."
                    )
            found["state"][index] = {
                key: self(name, value).clone()
                if isinstance(value, Tensor) and value.shape == parameter.shape
                else copy.deepcopy(value)
                for key, value in values.items()
            }
        found["param_groups"] = [
            {**group, "params": [index for index in group["params"] if index not in gone]}
            for group in state["param_groups"]
        ]
        return found


def _check(name: str, edits: Edits, state: Mapping[str, Tensor], model: nn.Module) -> None:
    if name not in state:
        raise RegrowError(f"the edits are of another network: this one has no {name}.")
    shape = tuple(state[name].shape)
    if shape != edits.shapes[name]:
        raise RegrowError(
            f"the edits are of another network: {name} has shape {shape} here and "
            f"{edits.shapes[name]} there."
        )
    sized = type(model.get_submodule(name.rpartition(".")[0])).__module__.startswith("torch.nn")
    for dim, indices in edits.keep[name].items():
        fits = 0 <= dim < len(shape) and (not len(indices) or int(indices.max()) < shape[dim])
        if sized:  # Where nothing is left, the layer's size must say so.
            fits &= bool(len(indices)) or any(each.value == 0 for each in edits.attributes)
        if not fits or bool((indices.diff() <= 0).any()):
            raise RegrowError(f"the edits are damaged: {name} has no such indices in {dim}.")


def _module(model: nn.Module, each: Attribute) -> nn.Module:
    try:
        module = model.get_submodule(each.module)
        value = getattr(module, each.name)
    except AttributeError as error:
        raise RegrowError(
            f"the edits are of another network: {each.module or 'it'} has no {each.name}."
        ) from error
    if isinstance(each.value, int):
        plain = isinstance(value, int) and not isinstance(value, bool)
    else:
        plain = isinstance(value, (tuple, list)) and len(value) == len(each.value)
    if not plain:
        raise RegrowError(
            f"the edits are of another network: {each.name} of {each.module or 'it'} is no size."
        )
    return module


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _indices(values: Any) -> Tensor:
    return torch.tensor([_whole(value) for value in values], dtype=torch.int64)


def _size(value: Any) -> int | tuple[int, ...]:
    return _whole(value) if isinstance(value, int) else tuple(_whole(each) for each in value)
