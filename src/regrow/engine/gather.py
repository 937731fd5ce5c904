"""Collecting the union of what an event's parts need, once."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, InverseFisher, Need, Statistics, Which
from regrow.core.neighbours import Neighbours
from regrow.model.activations import mean_outputs
from regrow.model.collect import LossFn, gradients, hessian_products, take
from regrow.model.damage import damage, maps_of
from regrow.model.fisher import chunk_for, invert, outer_products, wide
from regrow.model.flow import flow
from regrow.model.inventory import Inventory, weights_of

_COLLECTED = {"gradient", "gradient_square", "hessian_gradient"}
_WHICH: tuple[Which, ...] = ("current", "dense", "reference")


@dataclass(frozen=True)
class Source:
    """Where evidence comes from: the user's loss and batches, one input, the network's links."""

    loss_fn: LossFn | None = None
    data: Iterable[Any] | None = None
    batches: int | None = 64
    example: Any = None
    neighbours: Neighbours | None = None

    def check(self, needs: frozenset[Need]) -> None:
        """Refuse needs that ask for batches or an input when there are none.

        Raises:
            RegrowError: `loss_fn`, `data` or `example` is missing.
        """
        flows = frozenset(need for need in needs if need.kind == "flow")
        if flows and self.example is None:
            raise RegrowError(
                "scores by synaptic flow need the shape of an input: pass example=, one batch of "
                "inputs."
            )
        if not any(_runs(needs - flows, which) for which in _WHICH):
            return
        if self.loss_fn is None or self.data is None:
            raise RegrowError(
                "scores by gradients or activations need a loss and batches: pass loss_fn and data."
            )
        if isinstance(self.data, Iterator):
            raise RegrowError(
                "`data` is an iterator, which serves one collection and is then used up; pass "
                "what it iterates over, such as the loader or a list of batches."
            )

    @contextlib.contextmanager
    def open(self, batches: int | None = None) -> Iterator[tuple[LossFn, Iterator[Any]]]:
        """The loss and the batches of one collection, random streams restored at once after it.

        Args:
            batches: how many instead of the source's own number.
        """
        assert self.loss_fn is not None
        assert self.data is not None
        with contextlib.closing(take(self.data, batches or self.batches)) as taken:
            yield self.loss_fn, taken


def gather(
    needs: frozenset[Need],
    model: nn.Module,
    entries: Inventory,
    states: Mapping[str, Mapping[str, Tensor]],
    source: Source,
    key: tuple[object, ...],
    statistics: Statistics,
    masks: Mapping[str, Tensor] | None = None,
) -> Evidence:
    """Everything in `needs`, of the network as it stands and of the remembered ones.

    With several ranks each collects on its own data and the means are averaged, so the evidence
    is the same everywhere; a Fisher is over the gradients of all ranks alike.

    Args:
        needs: the union over the parts of the event.
        model: the live network; unchanged.
        entries: its inventory.
        states: state dicts of the remembered networks, by "dense" and "reference".
        source: loss, batches and an input.
        key: identifies the event, for random parts.
        statistics: by which batch norms of the live network normalise for its gradients; the
            remembered networks are finished and use their running ones.
        masks: keep masks of the live network, outside of which a Fisher has no gradients; None:
            nothing is removed.

    Raises:
        RegrowError: evidence is asked for that the source cannot give.
    """
    source.check(needs)
    networks: dict[Which, nn.Module] = {"current": model}
    tensors: dict[Need, dict[str, Tensor]] = {}
    for which in _WHICH:
        kinds = {need.kind for need in needs if need.of == which}
        if "weight" in kinds:
            live = model.state_dict() if which == "current" else states[which]
            tensors[Need("weight", which)] = {e.name: live[e.name].detach() for e in entries}
        if which != "current" and _runs(needs, which):
            networks[which] = _copy(model, states[which])
        network = networks.get(which, model)
        weights = weights_of(network, entries)
        reading = statistics if which == "current" else "running"
        if "activation" in kinds:
            with source.open() as (loss_fn, batches):
                sizes = mean_outputs(network, weights, loss_fn, batches)
            _average(list(sizes.values()))
            tensors[Need("activation", which)] = sizes
        if kinds & _COLLECTED:
            with source.open() as (loss_fn, batches):
                mean, square = gradients(
                    network,
                    weights,
                    loss_fn,
                    batches,
                    square="gradient_square" in kinds,
                    statistics=reading,
                )
            _average([*mean.values(), *square.values()])
            tensors[Need("gradient", which)] = mean
            tensors[Need("gradient_square", which)] = square
            if "hessian_gradient" in kinds:
                with source.open() as (loss_fn, batches):
                    products = hessian_products(
                        network, weights, loss_fn, batches, mean, statistics=reading
                    )
                _average(list(products.values()))
                tensors[Need("hessian_gradient", which)] = products
        if "flow" in kinds:
            tensors[Need("flow", which)] = flow(network, weights, source.example)
        for need in needs:
            if need.of == which and need.how is not None:
                kept = masks if which == "current" else None
                tensors[need] = _inverse(need.how, network, entries, source, kept, reading)
    similarity = None
    if _damage(needs):
        layers = {entry.name: _seen_layer(model, entry.layer) for entry in entries}
        compared = (networks["dense"], networks["current"])
        with source.open() as (loss_fn, batches):
            maps = maps_of(compared, batches, loss_fn, dict.fromkeys(layers.values()))
        for found in maps:
            _average(list(found.values()))
        similar = damage(*maps)
        similarity = {name: similar[layer] for name, layer in layers.items()}
    return Evidence(tensors, similarity, key, neighbours=_valued(source.neighbours, model))


def _valued(found: Neighbours | None, model: nn.Module) -> Neighbours | None:
    """Neighbours with the values that the network has now."""
    if found is None:
        return None
    every = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    return replace(found, tensors={name: every[name].detach() for name in sorted(found.names)})


def _inverse(
    how: InverseFisher,
    network: nn.Module,
    entries: Inventory,
    source: Source,
    masks: Mapping[str, Tensor] | None,
    statistics: Statistics,
) -> dict[str, Tensor]:
    weights = weights_of(network, entries)
    chunk = chunk_for(entries, how, _width(weights))
    with source.open(how.gradients) as (loss_fn, batches):
        blocks, count = outer_products(
            network, weights, loss_fn, batches, chunk, masks, statistics=statistics
        )
    # Beside the blocks, since not every way between ranks takes tensors of the processor.
    total = next(iter(blocks.values())).new_tensor(count, dtype=torch.float64)
    _sum([total, *blocks.values()])
    invert(blocks, int(total), how.damping)
    return blocks


def check_memory(needs: frozenset[Need], entries: Inventory, weights: Mapping[str, Tensor]) -> None:
    """Refuse, before any training, an inverse Fisher that would not fit the memory given to it.

    Raises:
        RegrowError: see `chunk_for`.
    """
    for need in needs:
        if need.how is not None:
            chunk_for(entries, need.how, _width(weights))


def _width(weights: Mapping[str, Tensor]) -> int:
    return max(wide(weight).itemsize for weight in weights.values())


def remembered(needs: frozenset[Need]) -> set[Which]:
    """The networks other than the live one whose weights the needs ask to be kept whole."""
    which: set[Which] = {need.of for need in needs}
    if _damage(needs):
        which.add("dense")
    return which - {"current", "remembered"}


def check_copies(needs: frozenset[Need], model: nn.Module) -> None:
    """Refuse, before any training, a model of which no second one can be made when one is needed.

    Raises:
        RegrowError: copying fails.
    """
    if _runs(needs, "dense") or _runs(needs, "reference"):
        _copy(model, model.state_dict())


def _damage(needs: frozenset[Need]) -> bool:
    return any(need.kind == "damage" for need in needs)


def _runs(needs: frozenset[Need], which: Which) -> bool:
    """Whether a network has to be run, not only its weights read."""
    if _damage(needs) and which != "reference":
        return True
    ran = {*_COLLECTED, "activation", "flow", "inverse_fisher"}
    return any(need.kind in ran and need.of == which for need in needs)


def _seen_layer(model: nn.Module, layer: str) -> str:
    # Attention applies its output projection itself: the projection's output is its own.
    parent = layer.rpartition(".")[0]
    owner = model.get_submodule(parent)
    return parent if isinstance(owner, nn.MultiheadAttention) else layer


def _copy(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise RegrowError(
            f"evidence of the dense network needs a copy of {type(model).__name__}, which cannot "
            f"be made: {error}. Keep no activations or open handles in the module."
        ) from error
    twin.load_state_dict(state)
    twin.zero_grad(set_to_none=True)
    return twin


def _average(tensors: list[Tensor]) -> None:
    if _sum(tensors):
        for tensor in tensors:
            tensor /= dist.get_world_size()


def _sum(tensors: list[Tensor]) -> bool:
    """Sum over ranks in place; whether there are several processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    for tensor in tensors:
        dist.all_reduce(tensor)
    return True


def check_ranks(checksum: str) -> None:
    """Refuse to go on when two ranks hold different masks.

    Raises:
        RegrowError: the checksums differ.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, checksum)
    if len(set(found)) > 1:
        raise RegrowError(
            f"the ranks hold different masks ({found}); start every rank from the same weights and "
            "the same program."
        )


def check_state(model: nn.Module, state: Mapping[str, Tensor], which: str) -> None:
    """Refuse a state dict that is not one of the model's.

    Raises:
        RegrowError: a name is missing or unexpected, or a shape differs.
    """
    own = model.state_dict()
    for name in sorted(own.keys() ^ state.keys()):
        has = f"the {which} network" if name in state else "the model"
        raise RegrowError(f"the {which} network is of another model: only {has} has {name!r}.")
    for name, tensor in own.items():
        if not isinstance(tensor, Tensor):  # of a module's `get_extra_state`
            continue
        if state[name].shape != tensor.shape:
            raise RegrowError(
                f"the {which} network is of another model: its {name} has shape "
                f"{tuple(state[name].shape)}, the model's {tuple(tensor.shape)}."
            )


def clone_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy, not references: the live tensors go on changing."""
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in model.state_dict().items()
    }
