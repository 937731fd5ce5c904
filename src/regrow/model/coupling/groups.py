"""The coupled groups of a network: what can be removed together, and what cannot be."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regrow.core.errors import RegrowError
from regrow.core.groups import Group
from regrow.core.names import unwrap
from regrow.model.coupling.indices import Dim, Indices
from regrow.model.coupling.nests import tensors_of
from regrow.model.coupling.reach import Reach
from regrow.model.coupling.rules import RULES, other, pointwise
from regrow.model.coupling.tracer import (
    Observer,
    RuleError,
    Site,
    Tracer,
    Watch,
    Work,
)
from regrow.model.coupling.units import one_factor, units_of
from regrow.model.walk import modules_of

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class Bound:
    """A layer whose outputs cannot be removed, and why."""

    layer: str
    size: int
    reason: str


@dataclass(frozen=True)
class Coupling:
    """All that a run of a network told.

    Attributes:
        groups: what can be removed.
        bound: layers that cannot lose outputs.
        parameters: classes of every dimension of parameters and buffers.
        trained: shapes of the parameters, tied ones once.
        tied: further names of parameters and buffers, and the first.
        convolutions: the classes of the groups of grouped convolutions and norms, by weight; of a
            norm without weight by module.
        norms: the channels that batch and instance norms saw, by module.
        works: multiply-adds for the example, by operation.
        sites: where code gave sizes.
        indices: the equations.
        unknown: operations without a rule, and the modules where they bound something.
        unseen: parameters that no operation read.
        reach: what the outputs learn from the example.
    """

    groups: tuple[Group, ...]
    bound: tuple[Bound, ...]
    parameters: Mapping[str, tuple[Dim, ...]]
    trained: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]
    convolutions: Mapping[str, Dim]
    norms: Mapping[str, Dim]
    works: tuple[Work, ...]
    sites: tuple[Site, ...]
    indices: Indices
    unknown: Mapping[str, tuple[str, ...]]
    unseen: tuple[str, ...]
    reach: Reach

    def stays(self, dim: Dim, gone: frozenset[int]) -> np.ndarray:
        """Which indices of a dimension stay when classes go; boolean."""
        assert dim is not None
        stays = np.ones(len(dim), np.bool_)
        if gone:
            rows = self.indices.going(dim)
            stays[rows[_table(gone, self.indices.count)[rows[:, 0]], 1]] = False
        return stays

    def emptied(self, gone: frozenset[int]) -> list[bool]:
        """Of each dimension that `reach` knows, whether all of its indices go with classes."""
        return [not self.stays(dim, gone).any() for dim in self.reach.dims]


@functools.lru_cache(maxsize=2)
def _table(classes: frozenset[int], count: int) -> np.ndarray:
    """Whether each class is among these."""
    found = np.zeros(count, np.bool_)
    found[list(classes)] = True
    return found


def couple(model: nn.Module, example: Any, fixed: Mapping[str, str] | None = None) -> Coupling:
    """Run a network once and find what of it stands or falls together.

    Args:
        model: runs in evaluation mode, without gradients; it is given back as it was.
        example: a tensor, a tuple of positional or a dictionary of keyword arguments.
        fixed: layers whose outputs shall not be removed, with the reason.

    Raises:
        RegrowError: it holds a recurrent layer, fails on the example, or its code branches on
            values computed from the example.
    """
    model = unwrap(model)
    refuse_recurrent(model)
    tracer = Tracer()
    tracer.add_state(model)
    tracer.add_example(example)
    for path, module in modules_of(model):
        if isinstance(module, nn.MultiheadAttention):
            for name, dims in tracer.parameters.items():
                if name.startswith(f"{path}.in_proj") or name == f"{path}.out_proj.weight":
                    for dim in dims:
                        tracer.indices.fix(dim, f"{path} takes its heads' size from its width")
    reach = Reach()
    outputs = watch(model, example, tracer, reach)
    if not tensors_of(outputs):
        raise RegrowError(
            f"{type(model).__name__} gives back {type(outputs).__name__} for the example, in which "
            "no tensor can be found; give back tensors, or tuples or dictionaries of them."
        )
    tracer.close(outputs)
    if not tracer.seen.issuperset(tracer.trained):
        _run_training(model, example, tracer)
    for layer, reason in (fixed or {}).items():
        for name, dims in tracer.parameters.items():
            if name.startswith(f"{layer}.") and dims:
                tracer.indices.fix(dims[1 if name in tracer.turned else 0], reason)
    names = {name for name in tracer.parameters if tracer.tied.get(name, name) in tracer.trained}
    unseen = {name for name in names if tracer.tied.get(name, name) not in tracer.seen}
    for name in unseen:
        for dim in tracer.parameters[name]:
            tracer.indices.fix(dim, "not used for the example")
    one_factor(tracer, names)
    groups = units_of(tracer, names)
    reach.close(tracer, tensors_of(outputs))
    return Coupling(
        groups=groups,
        bound=tuple(_bound(tracer)),
        parameters=tracer.parameters,
        trained=tracer.trained,
        tied=tracer.tied,
        convolutions=tracer.groups,
        norms=tracer.norms,
        works=tuple(tracer.works),
        sites=tuple(tracer.sites),
        indices=tracer.indices,
        unknown={name: tuple(sorted(where)) for name, where in tracer.unknown.items()},
        unseen=tuple(sorted(unseen)),
        reach=reach,
    )


def call(model: nn.Module, example: Any) -> Any:
    """The network's output for an example in any of its forms."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, (tuple, list)) else model(example)


@contextlib.contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, fused layers apart; the network comes back as it was.

    It passes through training mode, in which networks forget what they keep for evaluation.
    Compiled code runs as it was written.
    """
    modes = [(module, module.training) for _, module in modules_of(model)]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module, _ in modes
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    _evaluate(model, modes)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _uncompiled():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes:
            if module.training != mode:
                module.training = mode
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                module._buffers[name] = buffer
                if not torch.equal(buffer, values):
                    buffer.copy_(values)


def _evaluate(model: nn.Module, modes: Sequence[tuple[nn.Module, bool]]) -> None:
    """Walks through the network twice only where a module has its own way to change its mode."""
    if all(getattr(module.train, "__func__", None) is nn.Module.train for module, _ in modes):
        for module, training in modes:
            if training:
                module.training = False
    else:
        model.train().eval()


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Nothing can be compiled where the compiler is not loaded; loading it takes seconds."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def refuse_recurrent(model: nn.Module) -> None:
    """Raise RegrowError where a network holds a recurrent layer."""
    for name, module in modules_of(model):
        if isinstance(module, _RECURRENT):
            raise RegrowError(
                f"{name or 'the network'} is a recurrent layer ({type(module).__name__}), whose "
                "gates regrow does not cut; prune the parts around it as networks of their own."
            )


def watch(model: nn.Module, example: Any, tracer: Tracer, observe: Observer | None = None) -> Any:
    """Run a network once at rest, each operation meeting its rule; gives back its outputs.

    Raises:
        RegrowError: it fails on the example, or its code branches on values computed from it.
    """
    with at_rest(model), tracer.following(model):
        try:
            with Watch(tracer, RULES, pointwise, other, observe):
                return call(model, example)
        except (RegrowError, RuleError):
            raise
        except Exception as error:
            raise RegrowError(
                f"{type(model).__name__} fails on the example: {type(error).__name__}: {error}; "
                "give the example as the forward method takes it: a tensor, a tuple of positional "
                "or a dictionary of keyword arguments."
            ) from error


def _run_training(model: nn.Module, example: Any, tracer: Tracer) -> None:
    """Auxiliary outputs take part in training alone; what they share is bound by both."""
    works = list(tracer.works)
    try:
        with at_rest(model), tracer.following(model):
            model.train()
            for _, module in modules_of(model):
                if isinstance(module, _BatchNorm):  # or one value of a channel would be too few
                    module.eval()
            with Watch(tracer, RULES, pointwise, other):
                outputs = call(model, example)
            tracer.close(outputs)
    except Exception:  # such as a loss that wants labels; the table lists what was not seen
        pass
    finally:
        tracer.works[:] = works


def _bound(tracer: Tracer) -> Iterator[Bound]:
    for name, shape in tracer.trained.items():
        if len(shape) < 2 or not name.endswith("weight"):
            continue
        dim = tracer.parameters[name][1 if name in tracer.turned else 0]
        if dim is None:
            continue
        if not len(tracer.indices.going(dim)):
            reason = tracer.indices.reason(int(dim[0]))
            yield Bound(name.rpartition(".")[0] or name, len(dim), str(reason))
