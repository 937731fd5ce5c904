"""Trials of a cut on a stand-in for a network: the same code with random numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from regrow.core.rng import generator
from regrow.engine.cut import computes, others, outputs_of, possible_edits
from regrow.engine.groups import Groups
from regrow.engine.stand_ins import substitute
from regrow.engine.surgery import Edits, Keep, cut, tensors_of

_DRAWN = 65537  # random numbers, over and over; a prime, so that no two rows are alike


class Trial:
    """A copy of a network whose tensors lose entries and get them back.

    What it shows does not depend on layers that start at zero, or on an example of zeros, since its
    numbers are random. Code may not take any numbers: where the result is not finite, they are the
    network's own.

    Args:
        model: stays as it is.
        example: as for `find_groups`.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        memo: dict[int, Any] = {
            id(parameter): nn.Parameter(parameter.detach(), parameter.requires_grad)
            for parameter in model.parameters()
        }
        memo.update((id(buffer), buffer.detach()) for buffer in model.buffers())
        self.model = copy.deepcopy(model, memo)
        own = tensors_of(model)
        self._tensors = {
            id(tensor): (name, tensor, own[name]) for name, tensor in tensors_of(self.model).items()
        }
        self._own, self._whole = False, False
        self._own_example = example
        source = generator("trial: example")

        def noise(x: Any) -> Any:
            if isinstance(x, Tensor) and x.is_floating_point():
                return torch.randn(x.shape, generator=source).to(x)
            return x

        self._example = tree_map(noise, example)

    def follows(self, groups: Groups, keep: Mapping[str, Tensor]) -> bool:
        """Whether the code, with some attributes changed, computes what the masked network does."""
        gone = groups.classes(keep)
        kept = groups.kept(gone)
        if not self._whole:
            self._fill()
        expected = self._masked(kept)
        if expected is None and not self._own:
            self._own, self._example = True, self._own_example
            self._fill()
            expected = self._masked(kept)
        if expected is None:
            return False
        possible = list(possible_edits(self.model, groups, gone))
        self._whole = False
        tensors = tensors_of(self.model)
        for name, dims in kept.items():
            tensor = self._tensors[id(tensors[name])]
            if tensor[0] == name:
                _narrow(tensor[1], cut(tensor[1].data, dims))
        return any(self._fits(edits, expected) for edits in possible)

    def _fill(self) -> None:
        """Give every tensor its sizes and numbers."""
        source = generator("trial")
        numbers = torch.randn(_DRAWN, generator=source).repeat(2)
        positive = (torch.rand(_DRAWN, generator=source) + 0.5).repeat(2)
        for place, (name, tensor, own) in enumerate(self._tensors.values()):
            trained = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
            if trained and not self._own:
                drawn = numbers if own.dim() > 1 else positive
                fan = max(1, math.prod(own.shape[1:]))
                tensor.data = _spread(drawn[place % _DRAWN :], own, fan**-0.5)
            elif name.endswith(("running_mean", "running_var")) and not self._own:
                tensor.data = _spread(positive, own)
            else:
                tensor.data = own.detach().clone()
        self._whole = True

    def _masked(self, kept: Keep) -> list[Tensor] | None:
        """Outputs with zeros for what does not stay; None if they are not finite numbers."""
        parameters = dict(self.model.named_parameters())
        saved = []
        with torch.no_grad():
            for name in kept.keys() & parameters.keys():
                tensor = parameters[name].detach()
                for dim, indices in kept[name].items():
                    rest = others(tensor, dim, indices)
                    saved.append((tensor, dim, rest, tensor.index_select(dim, rest)))
                    tensor.index_fill_(dim, rest, 0)
            try:
                outputs = outputs_of(self.model, self._example)
            except Exception:  # code may refuse numbers that it does not expect
                return None
            finally:
                for tensor, dim, rest, values in reversed(saved):
                    tensor.index_copy_(dim, rest, values)
        return outputs if all(bool(torch.isfinite(each).all()) for each in outputs) else None

    def _fits(self, edits: Edits, expected: Sequence[Tensor]) -> bool:
        """Whether these sizes in modules give the outputs."""
        before = []
        for each in edits.attributes:
            module = self.model.get_submodule(each.module)
            value = getattr(module, each.name)
            before.append((module, each.name, value))
            new = each.value if isinstance(each.value, int) else type(value)(each.value)
            setattr(module, each.name, new)
        replaced = substitute(self.model, (a.module for a in edits.attributes if a.value == 0))
        try:
            return computes(self.model, self._example, expected)
        finally:
            for parent, name, layer in replaced:
                parent._modules[name] = layer
            for module, name, value in reversed(before):
                setattr(module, name, value)


def _spread(numbers: Tensor, like: Tensor, scale: float = 1) -> Tensor:
    """The first of these numbers, again and again as needed, in the form of a tensor."""
    found = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
    numbers = numbers[: min(_DRAWN, found.numel())].to(like) * scale
    if not found.numel():
        return found.view(like.shape)
    whole = found.numel() // len(numbers) * len(numbers)
    found[:whole].view(-1, len(numbers)).copy_(numbers)
    found[whole:].copy_(numbers[: found.numel() - whole])
    return found.view(like.shape)


def _narrow(tensor: Tensor, small: Tensor) -> None:
    """A part of a tensor in its place, so that both are never in memory for all tensors."""
    place = tensor.data.reshape(-1)[: small.numel()].view(small.shape)
    tensor.data = place.copy_(small)
