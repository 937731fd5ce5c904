"""Where the values of a tensor come from: seen in the watched run, operation by operation.

The equations of indices have no direction: along a residual stream all channels are the same. So
this keeps for every tensor the weights applied last on each way to it, and the norms and sums
since. What an operation does that has no such reading makes its outputs undefined, with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.neighbours import Norm, Place
from regrow.model.coupling.by_tensor import ByTensor
from regrow.model.coupling.indices import Dim
from regrow.model.coupling.rules.linear import convolution, product
from regrow.model.coupling.rules.norm import batch_norm, reduce
from regrow.model.coupling.rules.other import other
from regrow.model.coupling.rules.pointwise import dropout, pointwise, same
from regrow.model.coupling.rules.shape import (
    channel_shuffle,
    concatenate,
    embedding,
    expand,
    permute,
    pixel_shuffle,
    pixel_unshuffle,
    repeat,
    reshape,
    select,
    slice_,
    split,
    stack,
    transpose,
)
from regrow.model.coupling.rules.spatial import pad, pixels
from regrow.model.coupling.tracer import Call, Rule, Tracer


@dataclass(frozen=True)
class Origin:
    """One way on which outputs of a layer have come to a tensor; see `regrow.core.neighbours.Link`.

    Attributes:
        use: number of the use that computed them; None for the example, and for layers that are
            none of the uses, which are undefined.
        norms: numbers of those passed, in order.
        joins, identity: as of a link.
        undefined: why the way has no reading; None where it has.
    """

    use: int | None
    norms: tuple[int, ...] = ()
    joins: frozenset[str] = frozenset()
    identity: bool = False
    undefined: str | None = None


@dataclass(frozen=True)
class Stream:
    """What is known of a tensor's origin.

    Attributes:
        origins: one for each way, those by the same uses and norms as one.
        since: tensors, as bits, that are this one but for operations on single channels.
        above: tensors that it was computed from, as bits, itself included.
    """

    origins: tuple[Origin, ...]
    since: int
    above: int


@dataclass(frozen=True)
class Use:
    """A weight applied once: its place, and the classes and sizes of what it reads and computes."""

    place: Place
    module: str
    inputs: Dim
    outputs: Dim
    sizes: tuple[int, int]
    origins: tuple[Origin, ...]


@dataclass(frozen=True)
class Channels:
    """A norm, and the classes of its channels."""

    norm: Norm
    dim: Dim
    size: int


@dataclass
class Flow:
    """Observes a watched run.

    Attributes:
        uses: in the order of the run.
        norms: likewise.
    """

    uses: list[Use] = field(default_factory=list)
    norms: list[Channels] = field(default_factory=list)
    _streams: ByTensor[Stream] = field(default_factory=ByTensor)
    _turned: ByTensor[tuple[str, bool]] = field(default_factory=ByTensor)
    _count: int = 0

    def __call__(self, tracer: Tracer, call: Call, rule: Rule) -> None:
        given = [each for each in call.tensors if self.stream(tracer, each) is not None]
        if rule is embedding:
            self._embed(tracer, call)
        elif not given:
            self._constants(tracer, call, rule)
        elif rule is convolution:
            self._convolve(tracer, call)
        elif rule is product:
            self._multiply(tracer, call)
        elif rule is batch_norm:
            self._norm(tracer, call)
        elif rule is pointwise:
            self._pointwise(tracer, call, given)
        elif rule in _PARTS and _taken(tracer, call):
            self._undefine(tracer, call, "takes a part of the channels")
        elif rule in _BESIDE and _mixed(self._known(tracer, given)):
            self._undefine(tracer, call, "puts channels beside others of the same layer")
        elif rule in _PASSES:
            self._pass(tracer, call, given)
        else:
            own = any(isinstance(each, nn.Parameter) for each in call.tensors) and rule is other
            self._undefine(tracer, call, "has no single layer before each channel", layer=own)

    def stream(self, tracer: Tracer, tensor: Tensor) -> Stream | None:
        """None of parameters and constants."""
        known = self._streams.get(tensor)
        if known is None and tracer.name(tensor) is None and tracer.value(tensor).given:
            known = self._streams[tensor] = self._new((Origin(None),))
        return known

    def _new(self, origins: Iterable[Origin], since: int = 0, above: int = 0) -> Stream:
        bit = 1 << self._count
        self._count += 1
        return Stream(_merged(origins), since | bit, above | bit)

    def _give(self, call: Call, origins: Iterable[Origin], *, since: int = 0, above: int) -> None:
        origins = tuple(origins)
        for out in call.outputs:
            self._streams[out] = self._new(origins, since, above)

    def _known(self, tracer: Tracer, tensors: Iterable[Tensor]) -> list[Stream]:
        found = [self.stream(tracer, each) for each in tensors]
        return [each for each in found if each is not None]

    def _pass(self, tracer: Tracer, call: Call, given: Iterable[Tensor]) -> None:
        """Channels stay what they are."""
        streams = self._known(tracer, given)
        since = 0
        for each in streams:
            since |= each.since
        self._give(call, _all(streams), since=since, above=_above(streams))

    def _undefine(self, tracer: Tracer, call: Call, why: str, *, layer: bool = False) -> None:
        """What comes out has no reading; a layer among the operations hides the example too."""
        what = tracer.where(f"{call.name.removeprefix('aten.')} {why},")
        if call.name.endswith("_"):
            raise RegrowError(
                f"{what} and writes into its operand, so that what comes before each layer cannot "
                "be told; write the operation out of place, or choose a criterion that needs no "
                "neighbours."
            )
        streams = self._known(tracer, call.tensors)
        origins = [Origin(None, undefined=what)] if layer else []
        for each in _all(streams):
            known = each.undefined or (what if each.use is not None else None)
            origins.append(replace(each, undefined=known))
        self._give(call, origins, above=_above(streams))

    def _constants(self, tracer: Tracer, call: Call, rule: Rule) -> None:
        """A weight may be transposed on its way to a product."""
        if rule not in (transpose, same) or len(call.tensors) != 1:
            return
        source = call.tensors[0]
        name, turned = self._weight(tracer, source)
        if name is not None and source.dim() == 2:
            self._turned[call.outputs[0]] = (name, turned != (rule is transpose))

    def _weight(self, tracer: Tracer, tensor: Tensor) -> tuple[str | None, bool]:
        """A weight's name, and whether it is seen transposed."""
        name = tracer.name(tensor)
        return (name, False) if name is not None else self._turned.get(tensor) or (None, False)

    def _use(self, tracer: Tracer, call: Call, place: Place, x: Tensor | None, axis: int) -> None:
        """Note that a weight reads a dimension of a tensor and computes that of the output."""
        out = call.outputs[0]
        stream = None if x is None else self.stream(tracer, x)
        value = None if x is None else tracer.value(x)
        sizes = (0 if x is None else x.shape[axis], out.shape[axis])
        inputs = None if value is None else value.dims[axis]
        outputs = tracer.value(out).dims[axis]
        origins = () if stream is None else stream.origins
        self.uses.append(Use(place, tracer.module, inputs, outputs, sizes, origins))
        above = 0 if stream is None else stream.above
        self._give(call, (Origin(len(self.uses) - 1),), above=above)

    def _embed(self, tracer: Tracer, call: Call) -> None:
        name = tracer.name(call["weight"])
        if name is None:
            self._undefine(tracer, call, "uses a table that is computed", layer=True)
        else:
            self._use(tracer, call, Place(name, turned=True), None, -1)

    def _convolve(self, tracer: Tracer, call: Call) -> None:
        x, name = call["input"], tracer.name(call["weight"])
        if name is None or self.stream(tracer, x) is None:
            self._undefine(tracer, call, "has a kernel that is computed", layer=True)
            return
        turned = bool(call.arguments.get("transposed", False))
        axis = x.dim() - len(call["stride"]) - 1
        self._use(tracer, call, Place(name, call["groups"], turned), x, axis)

    def _multiply(self, tracer: Tracer, call: Call) -> None:
        x = next((call[n] for n in ("mat1", "self") if n in call.arguments), None)
        if "mat1" not in call.arguments and "mat2" not in call.arguments:
            x = None
        name, turned = (None, False) if x is None else self._weight(tracer, call["mat2"])
        added = call.arguments.get("self") if "mat1" in call.arguments else None
        flows = isinstance(added, Tensor) and self.stream(tracer, added) is not None
        if x is None or name is None or flows or self.stream(tracer, x) is None:
            self._undefine(tracer, call, "multiplies what is computed", layer=True)
        else:
            self._use(tracer, call, Place(name, turned=not turned), x, -1)

    def _norm(self, tracer: Tracer, call: Call) -> None:
        x, variance = call["input"], call.arguments.get("running_var")
        name = tracer.name(variance) if isinstance(variance, Tensor) else None
        if name is None:
            self._undefine(tracer, call, "has no running statistics")
            return
        scale = call.arguments.get("weight")
        weight = tracer.name(scale) if isinstance(scale, Tensor) else None
        found = Norm(weight, name, float(call["eps"]))
        self.norms.append(Channels(found, tracer.value(call.outputs[0]).dims[1], x.shape[1]))
        streams = self._known(tracer, [x])
        number = len(self.norms) - 1
        passed = [replace(each, norms=(*each.norms, number)) for each in _all(streams)]
        self._streams[call.outputs[0]] = self._new(passed, 0, _above(streams))

    def _pointwise(self, tracer: Tracer, call: Call, given: list[Tensor]) -> None:
        """An activation or a bias of one tensor; the sum of several."""
        plain = call.name.removeprefix("aten.").removesuffix("_")
        unlike = {id(each): each for each in given}
        others = [each for each in call.tensors if id(each) not in unlike]
        scaled = any(tracer.name(each) is not None or each.dim() for each in others)
        if plain in _SUMS and len(unlike) > 1:
            self._join(tracer, call, list(unlike.values()))
        elif len(unlike) == 1 and (plain in _SUMS or "prelu" in plain or not scaled):
            self._pass(tracer, call, given)
        else:
            self._undefine(tracer, call, "scales or mixes channels by other tensors")

    def _join(self, tracer: Tracer, call: Call, given: list[Tensor]) -> None:
        if call.name.endswith("_") and call["self"]._is_view():
            self._undefine(tracer, call, "adds to a part of a tensor")
        a, b = self._known(tracer, given)
        identity = bool(a.since & b.above or b.since & a.above)
        here = frozenset({tracer.module})
        joined = [
            replace(each, joins=each.joins | here, identity=each.identity or identity)
            for each in _all([a, b])
        ]
        self._give(call, joined, above=_above([a, b]))


_SUMS = ("add", "sub", "rsub")
_PARTS = (slice_, split, select)
_BESIDE = (concatenate, stack)
_PASSES = {reshape, permute, transpose, expand, repeat, concatenate, stack, split, slice_, select}
_PASSES |= {channel_shuffle, pixel_shuffle, pixel_unshuffle, same, dropout, pixels, pad, reduce}


def _taken(tracer: Tracer, call: Call) -> bool:
    """Whether an operation leaves out indices that a layer computes."""
    source = call["self"]
    axis = call["dim"] % source.dim()
    live = tracer.value(source).dims[axis] is not None
    whole = call.outputs[0].dim() == source.dim() and call.outputs[0].shape[axis]
    return live and whole != source.shape[axis]


def _mixed(streams: Sequence[Stream]) -> bool:
    """Whether a layer's outputs come in two forms, which the equations of indices would confuse."""
    met: dict[int | None, Stream] = {}
    for stream in streams:
        for each in stream.origins:
            known = met.setdefault(each.use, stream)
            if each.use is not None and known.origins != stream.origins:
                return True
    return False


def _all(streams: Iterable[Stream]) -> list[Origin]:
    return [origin for stream in streams for origin in stream.origins]


def _above(streams: Iterable[Stream]) -> int:
    found = 0
    for each in streams:
        found |= each.above
    return found


def _merged(origins: Iterable[Origin]) -> tuple[Origin, ...]:
    found: dict[tuple[int | None, tuple[int, ...]], Origin] = {}
    for each in origins:
        key = (each.use, each.norms)
        known = found.get(key)
        found[key] = (
            each
            if known is None
            else Origin(
                *key,
                known.joins | each.joins,
                known.identity or each.identity,
                known.undefined or each.undefined,
            )
        )
    return tuple(found.values())
