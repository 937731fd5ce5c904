"""What a network's outputs learn from its input, and what they would learn with groups removed.

A tensor that has lost all indices of a dimension holds nothing, so nothing goes through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from regrow.model.coupling.by_tensor import ByTensor
from regrow.model.coupling.indices import Classes, Dim
from regrow.model.coupling.tracer import Call, Rule, Tracer


@dataclass(frozen=True)
class _Node:
    """A tensor computed from the example: its dimensions and the tensors before it, by number."""

    dims: tuple[int, ...]
    above: tuple[int, ...]


@dataclass
class Reach:
    """Observes a watched run.

    Attributes:
        dims: the classes of all dimensions of tensors computed from the example, each once.
    """

    dims: list[Classes] = field(default_factory=list)
    _seen: list[tuple[tuple[Dim, ...], tuple[int, ...]]] = field(default_factory=list)
    _nodes: list[_Node] = field(default_factory=list)
    _outputs: tuple[int, ...] = ()
    _numbers: ByTensor[int] = field(default_factory=ByTensor)

    def __call__(self, tracer: Tracer, call: Call, rule: Rule) -> None:
        above = self._known(tracer, call.tensors)
        for out in call.outputs if above else ():
            value = tracer.value(out)
            if value.given:
                self._numbers[out] = self._add(value.dims, above)

    def close(self, tracer: Tracer, outputs: Iterable[Tensor]) -> None:
        """The run is over, and no equation is to come."""
        self._outputs = self._known(tracer, outputs)
        numbers: dict[bytes, int] = {}
        known: dict[int, int] = {}  # by array; `_seen` holds them
        for dims, above in self._seen:
            found = []
            for dim in dims:
                if dim is None:
                    continue
                if id(dim) not in known:
                    roots = tracer.indices.roots(dim)
                    known[id(dim)] = numbers.setdefault(roots.tobytes(), len(self.dims))
                    if len(numbers) > len(self.dims):
                        self.dims.append(roots)
                found.append(known[id(dim)])
            self._nodes.append(_Node(tuple(found), above))
        self._seen.clear()
        self._numbers = ByTensor()

    def outputs_learn(self, empty: Sequence[bool]) -> bool:
        """Whether all outputs still depend on the example.

        Args:
            empty: of each of `dims`, whether all of its indices are gone.
        """
        told = self._told(empty)
        return all(told[number] for number in self._outputs)

    def needed(self, emptied: Sequence[int]) -> int:
        """Which groups, each gone alone, some output would not depend on the example without.

        Args:
            emptied: of each of `dims`, the groups that hold all of its indices, as bits.

        Returns:
            the groups, as bits.
        """
        stopped: list[int] = []  # of each tensor, the groups without which it holds nothing
        for node in self._nodes:
            before = -1 if node.above else 0
            for each in node.above:
                before &= stopped[each]
            for dim in node.dims:
                before |= emptied[dim]
            stopped.append(before)
        found = 0
        for number in self._outputs:
            found |= stopped[number]
        return found

    def live(self, empty: Sequence[bool]) -> set[int]:
        """Numbers of the dimensions of tensors on some way from the example to an output."""
        told = self._told(empty)
        used = [False] * len(self._nodes)
        for number in self._outputs:
            used[number] = True
        for number in range(len(self._nodes) - 1, -1, -1):
            for each in self._nodes[number].above if used[number] and told[number] else ():
                used[each] = True
        return {
            dim
            for node, a, b in zip(self._nodes, told, used, strict=True)
            if a and b
            for dim in node.dims
        }

    def _told(self, empty: Sequence[bool]) -> list[bool]:
        gone = {dim for dim, each in enumerate(empty) if each}
        if not gone:
            return [True] * len(self._nodes)
        found: list[bool] = []
        for node in self._nodes:
            holds = gone.isdisjoint(node.dims)
            found.append(holds and (not node.above or any(found[each] for each in node.above)))
        return found

    def _known(self, tracer: Tracer, tensors: Iterable[Tensor]) -> tuple[int, ...]:
        """Numbers of those computed from the example, which is numbered when it is met."""
        found = []
        for tensor in tensors:
            number = self._numbers.get(tensor)
            if number is None:
                value = tracer.value(tensor)
                if not value.given:
                    continue
                number = self._numbers[tensor] = self._add(value.dims, ())
            found.append(number)
        return tuple(dict.fromkeys(found))

    def _add(self, dims: tuple[Dim, ...], above: tuple[int, ...]) -> int:
        self._seen.append((dims, above))
        return len(self._seen) - 1
