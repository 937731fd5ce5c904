"""Trials of a cut on a stand-in for a network: the same code with random numbers."""

from __future__ import annotations

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
from regrow.engine.surgery import Edits, Keep, cut
from regrow.engine.twin import twin
from regrow.model.walk import named_tensors

_DRAWN = 65537  # random numbers, over and over; a prime, so that no two rows are alike
_LARGE = 1 << 14  # numbers; tensors that have as many may have theirs in common


class Trial:
    """A copy of a network whose tensors lose entries and get them back.

    What it shows does not depend on layers that start at zero, or on an example of zeros, since its
    numbers are random. Code may not take any numbers: where the result is not finite, they are the
    network's own. Large parameters of one shape that lose the same entries share their numbers, so
    that a deep network takes little more memory than its largest layers.

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
        self.model = twin(model, memo)
        own = named_tensors(model)
        self._tensors = {
            id(tensor): (name, tensor, own[name])
            for name, tensor in named_tensors(self.model).items()
        }
        self._own = False
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
        self._fill(kept)
        expected = self._outputs()
        if expected is None and not self._own:
            self._own, self._example = True, self._own_example
            self._fill(kept)
            expected = self._outputs()
        if expected is None:
            return False
        possible = list(possible_edits(self.model, groups, gone))
        self._cut(kept)
        return any(self._fits(edits, expected) for edits in possible)

    def _fill(self, kept: Keep) -> None:
        """Give every tensor its sizes and numbers, with zeros for what parameters will lose."""
        source = generator("trial")
        numbers = torch.randn(_DRAWN, generator=source).repeat(2)
        positive = (torch.rand(_DRAWN, generator=source) + 0.5).repeat(2)
        made: dict[Any, Tensor] = {}
        gone: dict[int, Tensor] = {}
        for place, (name, tensor, own) in enumerate(self._tensors.values()):
            dims = kept.get(name, {})
            trained = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
            if trained and not self._own:
                alike = _alike(own, dims) if own.numel() >= _LARGE else name
                if alike not in made:
                    drawn = numbers if own.dim() > 1 else positive
                    fan = max(1, math.prod(own.shape[1:]))
                    made[alike] = _spread(drawn[place % _DRAWN :], own, fan**-0.5)
                    _mask(made[alike], dims, gone)
                tensor.data = made[alike]
            elif name.endswith(("running_mean", "running_var")) and not self._own:
                tensor.data = _spread(positive, own)
            else:
                tensor.data = own.detach().clone()
                if isinstance(tensor, nn.Parameter):
                    _mask(tensor.data, dims, gone)

    def _cut(self, kept: Keep) -> None:
        """Take from every tensor what it loses; those that shared their numbers share the rest."""
        made: dict[Any, Tensor] = {}
        for name, tensor, _ in self._tensors.values():
            if name in kept:
                place = (tensor.device, tensor.data_ptr(), tensor.shape)
                if place not in made:
                    made[place] = cut(tensor.data, kept[name])
                tensor.data = made[place]

    def _outputs(self) -> list[Tensor] | None:
        """None if they are not finite numbers."""
        try:
            outputs = outputs_of(self.model, self._example)
        except Exception:  # code may refuse numbers that it does not expect
            return None
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
    count = like.numel()
    numbers = numbers[: min(_DRAWN, count)].to(like) * scale
    if count <= _DRAWN:
        return numbers.view(like.shape)
    found = torch.empty(count, dtype=like.dtype, device=like.device)
    whole = found.numel() // len(numbers) * len(numbers)
    found[:whole].view(-1, len(numbers)).copy_(numbers)
    found[whole:].copy_(numbers[: found.numel() - whole])
    return found.view(like.shape)


def _alike(tensor: Tensor, dims: Mapping[int, Tensor]) -> Any:
    """Equal for tensors of one form that lose the same entries."""
    places = tuple((dim, indices.numpy().tobytes()) for dim, indices in dims.items())
    return tensor.shape, tensor.dtype, tensor.device, places


def _mask(tensor: Tensor, dims: Mapping[int, Tensor], gone: dict[int, Tensor]) -> None:
    """Zeros for what does not stay; the other indices of each list are kept by its identity."""
    for dim, indices in dims.items():
        if id(indices) not in gone:
            gone[id(indices)] = others(tensor, dim, indices)
        tensor.index_fill_(dim, gone[id(indices)].to(tensor.device), 0)
