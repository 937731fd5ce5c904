"""Trials of a cut on a stand-in for a network: the same code with random numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from regrow.core.allocator import give_back
from regrow.core.groups import Group
from regrow.core.rng import generator
from regrow.engine.compact import LARGE, compacted
from regrow.engine.cut import computes, others, outputs_of, possible_edits
from regrow.engine.groups import Groups
from regrow.engine.stand_ins import substitute
from regrow.engine.surgery import Edits, Keep, cut
from regrow.engine.twin import twin
from regrow.model.walk import modules_of, named_tensors

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
        self._kept: Keep = {}  # of the latest choice
        self.fit = 0  # which of the possible edits was right the last time
        self._own_example = example
        source = generator("trial: example")

        def noise(x: Any) -> Any:
            if isinstance(x, Tensor) and x.is_floating_point():
                return torch.randn(x.shape, generator=source).to(x)
            return x

        plain = dict(example) if isinstance(example, Mapping) else example
        self._example = tree_map(noise, plain)

    def follows(self, groups: Groups, keep: Mapping[str, Tensor]) -> bool:
        """Whether the code, with some attributes changed, computes what the masked network does."""
        gone = groups.classes(keep)
        kept = self._kept = groups.kept(gone)
        self._fill(kept)
        expected = self._outputs()
        if expected is None and not self._own:
            self._own, self._example = True, self._own_example
            self._fill(kept)
            expected = self._outputs()
        if expected is None:
            return False
        possible = list(possible_edits(self.model, groups, gone, kept))
        self._narrow({}, kept)
        return self._some_fit(possible, expected)

    def lets_go(self, groups: Groups, keep: Mapping[str, Tensor], free: Sequence[Group]) -> bool:
        """Whether groups may leave whole too, in small networks alone, after `follows` of `keep`.

        With one unit of each left, all of whose parameters are zero, the network must compute what
        it does without any. If not, a trial of its own will tell.
        """
        one, none = dict(keep), dict(keep)
        for group in free:
            none[group.name] = torch.zeros_like(keep[group.name])
            one[group.name] = none[group.name].index_fill(0, keep[group.name].nonzero()[0], True)
        some, all_ = groups.classes(one), groups.classes(none)
        single, empty = groups.kept(some), groups.kept(all_)
        edits = list(possible_edits(self.model, groups, some, single))
        possible = list(possible_edits(self.model, groups, all_, empty))
        if self.fit >= len(edits):
            return False
        self._narrow(self._kept, single, zero=empty)
        with self._edited(edits[self.fit]):
            expected = self._outputs()
        self._narrow(single, empty)
        return expected is not None and self._some_fit(possible, expected)

    def _fill(self, kept: Keep) -> None:
        """Give every tensor its sizes and numbers, with zeros for what parameters will lose."""
        source = generator("trial")
        numbers = torch.randn(_DRAWN, generator=source).repeat(2)
        positive = (torch.rand(_DRAWN, generator=source) + 0.5).repeat(2)
        made: dict[Any, Tensor] = {}
        gone: dict[int, Tensor] = {}
        for _, tensor, _ in self._tensors.values():
            tensor.data = tensor.data.new_empty(0)  # or the old would lie beside the new
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

    def _narrow(self, before: Keep, after: Keep, zero: Keep | None = None) -> None:
        """Take from every tensor what it loses; those that shared their numbers share the rest.

        Args:
            before: what it has of the original indices.
            after: what it will have.
            zero: parameters get zeros for those that are not among these.
        """
        within, beside = _Paired(torch.searchsorted), _Paired(_others)
        wanted: list[tuple[Tensor, dict[int, Tensor], dict[int, Tensor], Any]] = []
        forms: dict[int, set[Any]] = {}  # by memory: what becomes of the numbers there
        for name, tensor, own in self._tensors.values():
            had, has, dims = before.get(name, {}), after.get(name, {}), {}
            for dim, indices in has.items():
                if dim not in had:
                    dims[dim] = indices
                elif len(had[dim]) > len(indices):
                    dims[dim] = within(had[dim], indices)
            gone: dict[int, Tensor] = {}
            if zero is not None and isinstance(tensor, nn.Parameter):
                for dim, indices in zero.get(name, {}).items():
                    gone[dim] = beside(has[dim] if dim in has else own.shape[dim], indices)
            form = (*_alike(tensor, dims), *_alike(tensor, gone))
            forms.setdefault(tensor.data_ptr(), set()).add(form)
            if dims or any(map(len, gone.values())):
                wanted.append((tensor, dims, gone, form))
        made: dict[Any, Tensor] = {}
        for tensor, dims, gone, form in wanted:
            memory = tensor.data_ptr()
            new = made.get((memory, form))
            if new is None:
                alone = len(forms[memory]) == 1 and tensor.is_contiguous()
                here = alone and tensor.numel() >= LARGE
                new = compacted(tensor.data, dims) if here else cut(tensor.data, dims)
                for dim, indices in gone.items():
                    new.index_fill_(dim, indices.to(tensor.device), 0)
                made[memory, form] = new
            tensor.data = new

    def _outputs(self) -> list[Tensor] | None:
        """None if they are not finite numbers."""
        give_back()
        try:
            outputs = outputs_of(self.model, self._example)
        except Exception:  # code may refuse numbers that it does not expect
            return None
        return outputs if all(bool(torch.isfinite(each).all()) for each in outputs) else None

    def _some_fit(self, possible: Sequence[Edits], expected: Sequence[Tensor]) -> bool:
        """Whether some sizes in modules give the outputs; notes which."""
        give_back()
        for self.fit, edits in enumerate(possible):
            with self._edited(edits):
                if computes(self.model, self._example, expected):
                    return True
        return False

    @contextlib.contextmanager
    def _edited(self, edits: Edits) -> Iterator[None]:
        """With these sizes in modules."""
        before = []
        modules = dict(modules_of(self.model, again=True))
        for each in edits.attributes:
            module = modules[each.module]
            value = getattr(module, each.name)
            before.append((module, each.name, value))
            new = each.value if isinstance(each.value, int) else type(value)(each.value)
            setattr(module, each.name, new)
        replaced = substitute(self.model, (a.module for a in edits.attributes if a.value == 0))
        try:
            yield
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


class _Paired:
    """A function of two lists of indices, which are kept: many dimensions share them."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        self._function = function
        self._known: dict[tuple[int, int], tuple[Any, Tensor, Tensor]] = {}

    def __call__(self, a: Any, b: Tensor) -> Tensor:
        key = (a if isinstance(a, int) else id(a), id(b))
        if key not in self._known:
            self._known[key] = a, b, self._function(a, b)
        return self._known[key][2]


def _others(present: Tensor | int, indices: Tensor) -> Tensor:
    """Where the indices that are present, or all of so many, are none of these."""
    present = torch.arange(present) if isinstance(present, int) else present
    return (~torch.isin(present, indices)).nonzero().flatten()


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
