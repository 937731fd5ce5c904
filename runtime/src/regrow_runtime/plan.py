"""From folded steps to a native program for a number of images and threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from regrow_runtime import _native
from regrow_runtime.fold import Floats, Shapes, Step, Weighted
from regrow_runtime.graph import Graph
from regrow_runtime.memory import Memory, Strided, conv_planes, paddings, planes
from regrow_runtime.plan_operations import OPERATIONS


def plan(
    graph: Graph,
    steps: Sequence[Step],
    arrays: Mapping[str, Floats],
    shapes: Shapes,
    lanes: int,
    threads: int,
    apart: bool,
    isa: str,
) -> tuple[_native.Program, list[str]]:
    """A program, and for each of its steps the module of the user's model that it belongs to.

    Args:
        graph: for its inputs and outputs.
        steps: of `fold`.
        arrays: float32, by the names that nodes use.
        shapes: of all values, without the batch.
        lanes: images that are computed side by side.
        threads: that share each step, or
        apart: each compute `lanes` images of their own.
        isa: one of `_native.known_kernels()`.
    """
    planner = Planner(steps, arrays, shapes, lanes, threads, apart, isa)
    for name, _, _ in graph.inputs:
        planner.program.input(planner.make(name).native())
    last = _last_reads(steps, graph.outputs)
    for index, step in enumerate(steps):
        planner.add(step)
        planner.release(last, index)
    for name in graph.outputs:
        planner.program.output(planner.view(name).native())
    planner.program.finish()
    return planner.program, planner.modules


class Planner:
    """The values that live while a program is written."""

    def __init__(
        self,
        steps: Sequence[Step],
        arrays: Mapping[str, Floats],
        shapes: Shapes,
        lanes: int,
        threads: int,
        apart: bool,
        isa: str,
    ) -> None:
        self.program = _native.Program(lanes, threads, apart, isa)
        self.memory = Memory(self.program, lanes, paddings(steps, shapes, lanes))
        self.arrays, self.shapes, self.lanes = arrays, shapes, lanes
        self.buffers: dict[str, int] = {}
        self._parts: dict[str, Strided] = {}
        weighted = [step for step in steps if isinstance(step, Weighted)]
        self._whole = {name for step in weighted for name in (step.input, step.residual)}
        self.modules: list[str] = []

    def make(self, name: str) -> Strided:
        """A buffer for a new value."""
        self.buffers[name] = self.memory.take(planes(self.shapes[name]))
        return self.view(name)

    def share(self, name: str, source: str) -> None:
        """A value that is another one in another shape, if it lies alike."""
        self.buffers[name] = self.buffers[source]

    def part(self, name: str, source: str, view: Strided) -> None:
        """A value that is a part of another; copied for convolutions, which read whole planes."""
        if name in self._whole:
            self.program.copy(view.native(), self.make(name).native())
        else:
            self.buffers[name], self._parts[name] = self.buffers[source], view

    def is_part(self, name: str) -> bool:
        return name in self._parts

    def view(self, name: str) -> Strided:
        if name in self._parts:
            return self._parts[name]
        return self.memory.view(self.shapes[name], self.buffers[name])

    def constant(self, array: Floats) -> Strided:
        """An array that is the same for all images."""
        flat = np.ascontiguousarray(array, np.float32)
        strides = [stride // flat.itemsize for stride in flat.strides]
        return Strided(self.program.constant(flat.ravel()), 0, flat.shape, tuple(strides))

    def release(self, last: Mapping[str, int], index: int) -> None:
        """Take back the buffers of values that nothing reads after a step."""
        for name in [name for name in self.buffers if last.get(name, -1) <= index]:
            buffer = self.buffers.pop(name)
            if buffer not in self.buffers.values():
                self.memory.give(buffer)

    def add(self, step: Step) -> None:
        before = len(self.program.useful)
        if isinstance(step, Weighted):
            self._weighted(step)
        else:
            OPERATIONS[step.op](self, step)
        self.modules += [step.module] * (len(self.program.useful) - before)

    def _weighted(self, step: Weighted) -> None:
        inputs, outputs = conv_planes(step, self.shapes)
        turned = step.linear and len(self.shapes[step.input]) > 1
        if turned:  # channels first, as convolutions have them
            source = self.memory.take(inputs)
            view = self.view(step.input)
            flat = self.memory.view((inputs[0], *view.shape[:-1]), source)
            order = (len(view.shape) - 1, *range(len(view.shape) - 1))
            self.program.copy(view.permuted(order).native(), self._split(flat, inputs).native())
            target = self.memory.take(outputs)
        else:
            source = self.buffers[step.input]
            self.make(step.output)
            target = self.buffers[step.output]
        self.program.conv(
            step.weight,
            step.bias,
            step.groups,
            step.stride,
            step.padding,
            step.dilation,
            self.memory.geometry(inputs),
            source,
            self.memory.geometry(outputs),
            target,
            -1 if step.residual is None else self.buffers[step.residual],
            step.low,
            step.high,
        )
        if turned:
            shape = self.shapes[step.output]
            flat = self._split(self.memory.view((shape[-1], *shape[:-1]), target), outputs)
            order = (*range(1, len(shape)), 0)
            self.program.copy(flat.permuted(order).native(), self.make(step.output).native())
            self.memory.give(source)
            self.memory.give(target)

    def _split(self, view: Strided, plane: tuple[int, int, int]) -> Strided:
        """A plane of one long row seen with the axes of its positions."""
        geometry = self.memory.geometry(plane)
        strides: list[int] = []
        step = self.lanes
        for dim in reversed(view.shape[1:]):
            strides.insert(0, step)
            step *= dim
        return Strided(view.buffer, geometry.first, view.shape, (geometry.plane, *strides))


def _last_reads(steps: Sequence[Step], outputs: Iterable[str]) -> dict[str, int]:
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        if isinstance(step, Weighted):
            names = [step.input, *([step.residual] if step.residual else [])]
        else:
            names = list(step.inputs)
        last.update(dict.fromkeys(names, index))
        last.setdefault(step.output, index)  # a value that nobody reads
    last.update(dict.fromkeys(outputs, len(steps)))
    return last
