"""One run of a network, in which every operation says which indices depend on which."""

from __future__ import annotations

import contextlib
import functools
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regrow.core.errors import RegrowError
from regrow.model.coupling.by_tensor import ByTensor
from regrow.model.coupling.indices import Dim, Indices
from regrow.model.coupling.nests import tensors_of
from regrow.model.walk import modules_of, named_tensors


class Value(NamedTuple):
    """What is known of a tensor.

    Attributes:
        dims: the classes of each dimension's indices.
        zero: entries at removed indices are zero whenever the removed parameters are.
        given: it was computed from the example.
        data: and in floating point, so that the code must not branch on it; masks and token numbers
            alone do not make a network's shape.
    """

    dims: tuple[Dim, ...]
    zero: bool = False
    given: bool = False
    data: bool = False


@dataclass(slots=True, eq=False)
class Call:
    """One operation as it was called.

    Attributes:
        name: as in "aten.convolution".
        arguments: by the names of its schema, defaults filled in.
        outputs: its tensors.
        shape: of its first tensor before it ran, which operations in place may change.
        tensors: all among the arguments.
    """

    name: str
    arguments: Mapping[str, Any]
    outputs: Sequence[Tensor]
    shape: tuple[int, ...] = ()
    tensors: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.tensors = found = []
        for each in self.arguments.values():
            if isinstance(each, Tensor):
                found.append(each)
            elif isinstance(each, (list, tuple)):
                found += [part for part in each if isinstance(part, Tensor)]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]


@dataclass(frozen=True)
class Work:
    """Multiply-adds of an operation: `count` for each combination of indices of `dims`."""

    module: str
    count: int
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Site:
    """Where code of a module gave the sizes of a tensor: `dims` follow a cut only if it does."""

    module: str
    sizes: tuple[int, ...]
    dims: tuple[Dim, ...]


Rule: TypeAlias = "Callable[[Tracer, Call], None]"
Observer: TypeAlias = "Callable[[Tracer, Call, Rule], None]"
"""Sees each operation after its rule has."""


@dataclass
class Tracer:
    """What rules read and write.

    Attributes:
        indices: the classes.
        parameters: classes of the dimensions of parameters and buffers, by clean name.
        works: multiply-adds.
        sites: sizes given by code.
        unknown: operations without a rule, by name, with the modules where they bound something.
        groups: the classes of a grouped convolution's groups, by its weight's name; of a group norm
            without weight, by its module.
        trained: shapes of the parameters, tied ones once.
        seen: names of the parameters that an operation read.
        turned: names of weights whose outputs are their second dimension.
        tied: further names of parameters, by the first.
        norms: the channels that norms saw, by module.
    """

    indices: Indices = field(default_factory=Indices)
    parameters: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    unknown: dict[str, set[str]] = field(default_factory=dict)
    groups: dict[str, Dim] = field(default_factory=dict)
    trained: dict[str, tuple[int, ...]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    turned: set[str] = field(default_factory=set)
    tied: dict[str, str] = field(default_factory=dict)
    norms: dict[str, Dim] = field(default_factory=dict)
    _values: ByTensor[Value] = field(default_factory=ByTensor)
    _names: dict[int, str] = field(default_factory=dict)
    _state: dict[int, Value] = field(default_factory=dict)
    _stack: list[str] = field(default_factory=list)

    @property
    def module(self) -> str:
        """The innermost one that runs, or the network itself."""
        return self._stack[-1] if self._stack else ""

    def where(self, what: str) -> str:
        """A reason for a binding: what happens, and in which module."""
        return f"{what} in {self.module or 'the network'}"

    def value(self, tensor: Tensor) -> Value:
        """What is known; a tensor from elsewhere has fixed sizes."""
        state = self._state.get(id(tensor))
        if state is not None:
            self.seen.add(self._names[id(tensor)])
            return state
        known = self._values.get(tensor)
        return known if known is not None else Value((None,) * tensor.dim())

    def name(self, tensor: Tensor) -> str | None:
        """A parameter's."""
        return self._names.get(id(tensor))

    def turn(self, tensor: Tensor) -> None:
        """A weight, if it is one, has its inputs first."""
        name = self._names.get(id(tensor))
        if name is not None:
            self.turned |= {name, *(other for other, one in self.tied.items() if one == name)}

    def give(
        self, tensor: Tensor, dims: Sequence[Dim], *, like: Sequence[Value], zero: bool
    ) -> None:
        """Note the classes of an output.

        Args:
            dims: one for each dimension; those of a single index count as fixed.
            like: the inputs that it was computed from.
            zero: see `Value`.
        """
        kept: list[Dim] = []
        for dim, size in zip(dims, tensor.shape, strict=True):
            assert dim is None or len(dim) == size, (len(dim), tensor.shape)
            kept.append(None if size == 1 else dim)
        given = data = False
        for each in like:
            given, data = given or each.given, data or each.data
        data = data or (given and tensor.is_floating_point())
        self._values[tensor] = Value(tuple(kept), zero, given, data)

    def work(self, count: int, dims: Iterable[tuple[Dim, int]]) -> None:
        """Note multiply-adds: so many for each combination of indices of (classes, size)."""
        dims = list(dims)
        count *= math.prod(size for dim, size in dims if dim is None)
        live = tuple(dim for dim, _ in dims if dim is not None)
        self.works.append(Work(self.module, count, live))

    def site(self, sizes: Sequence[int], dims: Sequence[Dim]) -> None:
        if any(dim is not None for dim in dims):
            self.sites.append(Site(self.module, tuple(sizes), tuple(dims)))

    def add_state(self, model: nn.Module) -> None:
        """Give every parameter and buffer classes of its own; tied ones have the same."""
        tensors = named_tensors(model)
        unlike = {id(tensor): tensor for tensor in tensors.values()}
        sizes = [size for tensor in unlike.values() for size in tensor.shape if size > 1]
        fresh = iter(self.indices.fresh_each(sizes))
        for name, tensor in tensors.items():
            known = self._names.get(id(tensor))
            if known is not None:
                self.parameters[name], self.tied[name] = self.parameters[known], known
                continue
            self._names[id(tensor)] = name
            dims = tuple([next(fresh) if size > 1 else None for size in tensor.shape])
            self.parameters[name] = dims
            trained = isinstance(tensor, nn.Parameter)
            self._state[id(tensor)] = Value(dims, zero=trained)
            if trained:
                self.trained[name] = tuple(tensor.shape)

    def add_example(self, example: Any) -> None:
        for tensor in tensors_of(example):
            data = tensor.is_floating_point()
            self._values[tensor] = Value((None,) * tensor.dim(), given=True, data=data)

    def close(self, outputs: Any) -> None:
        """What the network gives back keeps its sizes."""
        for tensor in tensors_of(outputs):
            for dim in self.value(tensor).dims:
                self.indices.fix(dim, "an output of the network")

    @contextlib.contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Keep track of the module that runs."""
        paths = {module: path for path, module in modules_of(model)}

        def enter(module: nn.Module, _: Any) -> None:
            self._stack.append(paths.get(module, self.module))

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            self._stack.pop()

        hooks = nn.modules.module
        before = hooks.register_module_forward_pre_hook(enter)
        after = hooks.register_module_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()


class RuleError(Exception):
    """A rule itself failed: a defect of regrow, whatever the network."""


class Watch(TorchDispatchMode):
    """Runs operations and shows each to its rule."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Or PyTorch would load its compiler at the first operation, which takes seconds."""
        return False

    def __init__(
        self,
        tracer: Tracer,
        rules: Mapping[str, Rule],
        pointwise: Rule,
        other: Rule,
        observe: Observer | None = None,
    ):
        super().__init__()
        self.tracer, self.rules, self.pointwise, self.other = tracer, rules, pointwise, other
        self.observe = observe

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {} if kwargs is None else kwargs
        name, pointwise, arguments = _known(func)
        if name in _READS and any(self.tracer.value(each).data for each in args[:1]):
            raise RegrowError(
                f"the network's code branches on a value computed from its input ({_line()}), so "
                "another input could take another way; move the branch out of the forward method "
                "or write it with torch.where."
            )
        shape = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else ()
        out = func(*args, **kwargs)
        outputs = tensors_of(out)
        if outputs and (name != "aten.empty" or outputs[0].numel()):
            bound = {**arguments, **dict(zip(arguments, args, strict=False)), **kwargs}
            call = Call(name, bound, outputs, shape)
            rule = self.rules.get(name)
            if rule is None:
                rule = self.pointwise if pointwise else self.other
            try:
                rule(self.tracer, call)
            except Exception as error:
                where = self.tracer.module or "the network"
                raise RuleError(f"the rule for {name} failed in {where}: {error!r}") from error
            if self.observe is not None:
                self.observe(self.tracer, call, rule)
        return out


_READS = ("aten._local_scalar_dense", "aten.is_nonzero", "aten.item", "aten.equal")


@functools.cache
def _known(func: Any) -> tuple[str, bool, dict[str, Any]]:
    """An operation's name, whether it is pointwise, and its arguments with their defaults."""
    arguments = {each.name: each.default_value for each in func._schema.arguments}
    return str(func.overloadpacket), _pointwise(func), arguments


def _pointwise(func: Any) -> bool:
    """Whether PyTorch calls it, or what it does in place, pointwise."""
    if torch.Tag.pointwise in func.tags:
        return True
    plain = getattr(torch.ops.aten, func._schema.name.partition("::")[2].rstrip("_"), None)
    if plain is None or not func._schema.name.endswith("_"):
        return False
    return any(torch.Tag.pointwise in getattr(plain, name).tags for name in plain.overloads())


def _line() -> str:
    """Of the code outside torch and regrow that runs."""
    for frame in reversed(traceback.extract_stack()):
        path = frame.filename.replace("\\", "/")
        if not any(part in path for part in ("/torch/", "/regrow/model/")):
            return f"{path.rpartition('/')[2]}:{frame.lineno}: {frame.line}"
    return "in code without source"
