"""A PyTorch model as the runtime's graph, by way of torch.export."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, InputSpec, OutputKind, OutputSpec

from regrow.core.errors import RegrowError
from regrow.core.names import unwrap
from regrow.export.capture_ops import HINTS, SHAPED, TABLE
from regrow.export.capture_site import Array, Computed, Site, Value, need
from regrow.export.capture_trace import trace
from regrow.export.runtime import runtime

if TYPE_CHECKING:
    from regrow_runtime.graph import Graph, Node

aten = torch.ops.aten
# Operators that give a stored array as it is, or its transpose.
_SAME = (aten.alias.default, aten.clone.default, aten.detach.default)
_TRANSPOSES = (aten.t.default, aten.transpose.int, aten.permute.default)

# What is known of a tensor: a name or None for each of several results, None after a refusal.
_Known = Value | Array | Computed | tuple[str | None, ...] | None


def capture(model: nn.Module, example: Tensor | tuple[Tensor, ...]) -> Graph:
    """What a model computes in evaluation mode, as a graph of the runtime's operations.

    The model is traced by torch.export with a batch axis of any size. PyTorch then makes the
    trace functional: every read after a write in place sees the new value, through views too.
    Weights are referred to by their names in `unwrap(model).state_dict()`, tied ones by the first
    of their names. Outputs that are nested in tuples, lists or dicts stand flat, in their order.
    Assertions are dropped. Nothing is computed; the model, its modes and weights stay as they are.

    Args:
        model: may be compiled or data-parallel, and on any device.
        example: what `forward` takes by position: float32 tensors with the batch as axis 0, all
            of one size of at least 1. Only the other axes matter.

    Returns:
        A graph whose operations are those of the table in docs/format-2.md.

    Raises:
        RegrowError: the runtime is not installed; the example is no batch; torch.export cannot
            trace the model; or operators of the model are not in the table: all of them are
            named, with their places.

    Departures: a branch on a batch of one sample, as in `x.squeeze()` or `if x.size(0) == 1`, is
    taken as for more samples.
    """
    graph = runtime().graph
    inner = unwrap(model)
    kind = type(inner).__name__
    program = trace(inner, example)
    nodes = list(program.graph.nodes)
    known: dict[fx.Node, _Known] = {}
    inputs = []
    names, batch = _first_names(inner), None
    for node, spec in zip(nodes, program.graph_signature.input_specs, strict=False):
        seen = node.meta["val"]
        if spec.kind == InputKind.USER_INPUT:
            batch = batch or seen.shape[0].node.expr
            known[node] = Value(node.name, _shape(seen, batch))
            inputs.append((node.name, _shape(seen, batch), "float32"))
        else:
            known[node] = _stored(spec, seen, names)
    results = _results(kind, nodes[-1], program.graph_signature.output_specs)
    made = _translate(kind, _needed_for(results, nodes), known, batch)
    outputs = [known[node] for node in results]
    if not outputs or not all(isinstance(one, Value) for one in outputs):
        raise RegrowError(
            f"{kind} returns nothing, or something that its input does not change: return what "
            "is computed from the input, and that alone."
        )
    return graph.Graph(
        tuple(inputs), tuple(one.name for one in outputs if isinstance(one, Value)), tuple(made)
    )


def _first_names(model: nn.Module) -> dict[str, str]:
    """For each name of the state dict, the first one of the same view of the same memory."""
    firsts: dict[Any, str] = {}
    names = {}
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            same = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            names[name] = firsts.setdefault(same if tensor.numel() else name, name)
    return names


def _stored(spec: InputSpec, seen: Any, names: Mapping[str, str]) -> Array | Computed:
    target = str(spec.target)
    if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and target in names:
        return Array(names[target], tuple(seen.shape), seen.dtype)
    return Computed(f"the tensor {target}, which the state dict lacks: register it as a buffer")


def _shape(seen: Any, batch: Any) -> tuple[int, ...]:
    """The shape of a traced value without its batch axis, if the runtime can hold it."""
    need(isinstance(seen, Tensor), f"it makes a {type(seen).__name__}, not a tensor")
    sizes = [size.node.expr if isinstance(size, torch.SymInt) else size for size in seen.shape]
    text = ", ".join(str(size).replace(str(batch), "batch") for size in sizes)
    whole = sizes[:1] == [batch] and all(isinstance(size, int) for size in sizes[1:])
    need(whole, f"it makes a value of shape ({text}), and the batch must be axis 0 and no other")
    need(0 not in sizes, f"it makes an empty value of shape ({text})")
    need(seen.dtype == torch.float32, f"it makes {seen.dtype}, and the runtime has float32 only")
    return tuple(sizes[1:])


def _results(kind: str, output: fx.Node, specs: Sequence[OutputSpec]) -> list[fx.Node]:
    """The nodes that forward returns."""
    results = []
    for node, spec in zip(output.args[0], specs, strict=True):  # type: ignore[arg-type]
        if spec.kind == OutputKind.USER_INPUT_MUTATION:
            continue
        if spec.kind != OutputKind.USER_OUTPUT:
            raise RegrowError(
                f"{kind} writes to {spec.target} in evaluation mode, and a packed model does not "
                "change: leave that out of forward."
            )
        if not isinstance(node, fx.Node):
            raise RegrowError(f"{kind} returns {node!r}: return tensors only.")
        results.append(node)
    return results


def _needed_for(results: list[fx.Node], nodes: list[fx.Node]) -> list[fx.Node]:
    """The operators that the results depend on, in order."""
    needed = set(results)
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in nodes if node in needed and node.op != "placeholder"]


def _translate(
    kind: str, needed: list[fx.Node], known: dict[fx.Node, _Known], batch: Any
) -> list[Node]:
    """The nodes for all operators; `known` gets what each of them gives.

    Raises:
        RegrowError: all operators that have no translation.
    """
    made: list[Node] = []
    refused: dict[str, list[str]] = {}
    for node in needed:
        if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool)):
            continue
        sources = [known[one] for one in node.all_input_nodes if one in known]
        module = _module(node)
        try:
            known[node] = _meaning(node, sources, known, batch, made, module)
        except RegrowError as fault:
            known[node] = None
            reason = f" ({fault})" if str(fault) else ""
            places = refused.setdefault(f"{node.target}{reason}", [])
            if module not in places:
                places.append(module)
    if refused:
        listed = "; ".join(
            f"{what} in {', '.join(place or 'the model itself' for place in places)}"
            for what, places in refused.items()
        )
        raise RegrowError(
            f"{kind} cannot run in the runtime, which has no operation for: {listed}. Write these "
            "with operations of the table in docs/format-2.md; to store the model and run it in "
            "PyTorch, regrow.save takes it as it is."
        )
    return made


def _meaning(
    node: fx.Node,
    sources: list[_Known],
    known: Mapping[fx.Node, _Known],
    batch: Any,
    made: list[Node],
    module: str,
) -> _Known:
    """What an operator gives, its nodes appended to `made`; short reasons in a RegrowError."""
    if node.target is operator.getitem:
        parts, index = sources[0], node.args[1]
        if not isinstance(parts, tuple):
            return parts
        part = parts[index]  # type: ignore[index]
        return None if part is None else Value(part, _shape(node.meta["val"], batch))
    if None not in sources and not any(isinstance(one, (Value, tuple)) for one in sources):
        return _constant(node, sources)
    target: Any = node.target
    need(target in TABLE, HINTS.get(target, ""))
    if None in sources:
        return None  # it has a translation, but what it reads has none
    seen = node.meta["val"]
    several = isinstance(seen, (tuple, list))
    used: Any = {user.args[1] for user in node.users} if several else ()
    site = Site(made, module, () if several else _shape(seen, batch), frozenset(used))
    # What is not known is a size of the batch; the result's shape has it where it belongs.
    fixed = all(one in known for one in node.all_input_nodes) or target in SHAPED
    need(fixed, "a number in it depends on the size of the batch")

    def read(one: fx.Node) -> Any:
        return known.get(one)

    result = TABLE[target](site, *fx.map_arg(node.args, read), **fx.map_arg(node.kwargs, read))
    return Value(result, site.shape) if isinstance(result, str) else result


def _constant(node: fx.Node, sources: Sequence[_Known]) -> Array | Computed:
    """What an operator gives that reads parameters alone, or nothing."""
    stored = [one for one in sources if isinstance(one, (Array, Computed))]
    first = stored[0] if stored else None
    if node.target in _SAME and (isinstance(first, Array) or (first and first.repeated)):
        return first
    if isinstance(first, Array) and node.target in _TRANSPOSES and len(first.shape) == 2:
        moved: Any = node.target
        swapped = moved(torch.empty(2, 3), *node.args[1:]).shape == (3, 2)
        return replace(first, transposed=first.transposed != swapped)
    names = tuple(dict.fromkeys(itertools.chain.from_iterable(one.names for one in stored)))
    if names:
        return Computed(
            f"computed from {', '.join(names)} by {node.target}: make it a plain parameter, by "
            "finalising the pruning or removing the parametrisation",
            names,
            first if isinstance(first, Array) and _repeats(node, first) else None,
        )
    if isinstance(first, Computed):
        return first
    return Computed(f"made in forward by {node.target}: register it as a buffer")


def _repeats(node: fx.Node, array: Array) -> bool:
    """Whether an operator gives a stored array to every sample of the batch."""
    if node.target is not aten.expand.default or array.transposed:
        return False
    seen = node.meta["val"].shape
    return len(seen) == len(array.shape) + 1 and isinstance(seen[0], torch.SymInt)


def _module(node: fx.Node) -> str:
    """The path of the module in the user's model whose forward called the operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""
