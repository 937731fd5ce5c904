"""Trials of a cut on a stand-in for a network: the same code with random numbers."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from regrow.core.rng import generator
from regrow.engine.cut import computes, others, outputs_of, possible_edits
from regrow.engine.groups import Groups
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
        self._original, self._own_example = model, example
        source = generator("trial")
        numbers = torch.randn(_DRAWN, generator=source)
        positive = torch.rand(_DRAWN, generator=source) + 0.5
        memo: dict[int, Any] = {}
        for place, parameter in enumerate(model.parameters()):
            drawn = parameter.detach()
            if parameter.is_floating_point():
                fan = math.prod(parameter.shape[1:])
                scaled = numbers / max(1, fan) ** 0.5 if parameter.dim() > 1 else positive
                drawn = _spread(scaled.roll(place), parameter)
            memo[id(parameter)] = nn.Parameter(drawn, parameter.requires_grad)
        for name, buffer in model.named_buffers():
            statistics = name.endswith(("running_mean", "running_var"))
            memo[id(buffer)] = _spread(positive, buffer) if statistics else buffer.clone()
        self.model = copy.deepcopy(model, memo)

        def noise(x: Any) -> Any:
            if isinstance(x, Tensor) and x.is_floating_point():
                return torch.randn(x.shape, generator=source).to(x)
            return x

        self._example = tree_map(noise, example)

    def follows(self, groups: Groups, keep: Mapping[str, Tensor]) -> bool:
        """Whether the code, with some attributes changed, computes what the masked network does."""
        gone = groups.gone(keep)
        kept = groups.kept(gone)
        expected = self._masked(kept)
        if expected is None:
            self._take_own()
            expected = self._masked(kept)
        if expected is None:
            return False
        for edits in possible_edits(self.model, groups, gone):
            with self._cut(edits):
                if computes(self.model, self._example, expected):
                    return True
        return False

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

    def _take_own(self) -> None:
        self._example = self._own_example
        own = tensors_of(self._original)
        with torch.no_grad():
            for name, tensor in tensors_of(self.model).items():
                tensor.copy_(own[name])

    @contextlib.contextmanager
    def _cut(self, edits: Edits) -> Iterator[None]:
        """Fewer entries and other sizes for a while."""
        tensors = tensors_of(self.model)
        modules = [self.model.get_submodule(each.module) for each in edits.attributes]
        whole = {name: tensors[name].data for name in edits.keep}
        pairs = list(zip(modules, edits.attributes, strict=True))
        before = [getattr(module, each.name) for module, each in pairs]
        try:
            for name, dims in edits.keep.items():
                tensors[name].data = cut(whole[name], dims)
            for (module, each), value in zip(pairs, before, strict=True):
                new = each.value if isinstance(each.value, int) else type(value)(each.value)
                setattr(module, each.name, new)
            yield
        finally:
            for name, data in whole.items():
                tensors[name].data = data
            for (module, each), value in reversed(list(zip(pairs, before, strict=True))):
                setattr(module, each.name, value)


def _spread(numbers: Tensor, like: Tensor) -> Tensor:
    """These numbers one after the other, as often as needed, in the form of a tensor."""
    numbers = numbers.to(like)
    if like.numel() > len(numbers):
        numbers = numbers.repeat(-(-like.numel() // len(numbers)))
    return numbers[: like.numel()].reshape(like.shape).clone()
