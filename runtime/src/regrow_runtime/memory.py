"""Where values lie: padded planes that convolutions can run over, and their reuse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from regrow_runtime import _native
from regrow_runtime.fold import Shapes, Step, Weighted

Size = tuple[int, int]
Planes = tuple[int, int, int]
LANES = 16
"""Images that are computed side by side at most: as many as a vector register has room for."""

# Floats of a row. Longer ones would have those above and below laid out with them too often, and
# those that are no whole vectors once more for each row of a kernel. The more lanes there are, the
# more columns begin with a vector anyway.
_SHORT = 16
_SHORT_WHOLE = {1: 64, 2: 64, 4: 64, 8: 32, 16: 0}
# Outputs that read a place of the kernel in a channel: so few do not pay for laying them out.
_FEW_READERS = 6


def planes(shape: Sequence[int]) -> Planes:
    """Channels, rows and columns of a value of any number of axes."""
    if len(shape) <= 1:
        return (math.prod(shape), 1, 1)
    return (shape[0], math.prod(shape[1:-1]), shape[-1])


def conv_planes(step: Weighted, shapes: Shapes) -> tuple[Planes, Planes]:
    """What a convolution reads and writes; the columns of a linear layer are its positions."""
    before, after = shapes[step.input], shapes[step.output]
    if step.linear:
        positions = math.prod(before[:-1])
        return (before[-1], 1, positions), (after[-1], 1, positions)
    return planes(before), planes(after)


def paddings(steps: Iterable[Step], shapes: Shapes, lanes: int) -> dict[Size, Size]:
    """Rows above and below and columns at the side that the planes of each size need.

    All values of one size share them, so that the runs of pixels of a convolution mean the same in
    its input and its output. Where rows are short and many weights read each place, convolutions
    lay out their input anew and need no columns.
    """
    found: dict[Size, Size] = {}
    readers: dict[Size, tuple[int, int]] = {}
    for step in steps:
        if not isinstance(step, Weighted):
            continue
        (channels, *before), (_, *after) = conv_planes(step, shapes)
        if step.stride != (1, 1) or before != after:
            continue
        rows, columns = (
            max(step.padding[axis], reach - step.padding[axis])
            for axis, reach in enumerate(
                (size - 1) * dilation
                for size, dilation in zip(step.weight.shape[2:], step.dilation, strict=True)
            )
        )
        size = (before[0], before[1])
        old = found.get(size, (0, 0))
        found[size] = (max(old[0], rows), max(old[1], columns))
        if columns > 0:
            reads, places = readers.get(size, (0, 0))
            reads += int(np.count_nonzero(step.weight))
            readers[size] = (reads, places + channels * math.prod(step.weight.shape[2:]))
    for size, (reads, places) in readers.items():
        row = size[1] * lanes
        if row % 16 == 0:
            short = reads > _FEW_READERS * places and row <= _SHORT_WHOLE[lanes]
        else:
            short = lanes < LANES // 2 and row <= _SHORT
        if short:
            found[size] = (found[size][0], 0)
    return found


@dataclass
class Memory:
    """Gives values their buffers in a program, and takes them back when nobody reads them more.

    Attributes:
        program: that holds the buffers.
        lanes: images side by side.
        padding: by size of plane.
    """

    program: _native.Program
    lanes: int
    padding: Mapping[Size, Size]
    _free: dict[Size, list[tuple[int, int]]] = field(default_factory=dict)
    _planes: dict[int, Planes] = field(default_factory=dict)

    def geometry(self, plane: Planes) -> _native.Geometry:
        channels, rows, columns = plane
        padding = self.padding.get((rows, columns), (0, 0))
        return _native.Geometry(channels, (rows, columns), padding, self.lanes)

    def take(self, plane: Planes) -> int:
        """A buffer for a plane; one that was used before has only ever held planes of this size,
        so that its padding is still zero."""
        free = self._free.setdefault(plane[1:], [])
        fitting = sorted(each for each in free if each[0] >= plane[0])
        if fitting:
            free.remove(fitting[0])
            return fitting[0][1]
        buffer: int = self.program.buffer(self.geometry(plane).size)
        self._planes[buffer] = plane
        return buffer

    def give(self, buffer: int) -> None:
        """A buffer is free again."""
        channels, *size = self._planes[buffer]
        self._free[size[0], size[1]].append((channels, buffer))

    def view(self, shape: Sequence[int], buffer: int) -> Strided:
        """A value's entries in its buffer."""
        plane = planes(shape)
        geometry = self.geometry(plane)
        strides: list[int] = []
        if len(shape) == 1:
            strides = [geometry.plane]
        elif len(shape) > 1:
            step = geometry.row
            middle: list[int] = []
            for dim in reversed(shape[1:-1]):
                middle.insert(0, step)
                step *= dim
            strides = [geometry.plane, *middle, self.lanes]
        return Strided(buffer, geometry.first, tuple(shape), tuple(strides))


@dataclass(frozen=True)
class Strided:
    """Entries of a buffer: shape without the batch, offset and strides in floats."""

    buffer: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def native(self) -> _native.View:
        return _native.View(self.buffer, self.offset, self.shape, self.strides)

    def permuted(self, axes: Sequence[int]) -> Strided:
        """Axes in another order; `axes` count from 0, without the batch."""
        shape = tuple(self.shape[axis] for axis in axes)
        return Strided(self.buffer, self.offset, shape, tuple(self.strides[axis] for axis in axes))

    def sliced(self, axis: int, start: int, step: int, length: int) -> Strided:
        """Every `step`-th entry of an axis from `start` on."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = length, strides[axis] * step
        return Strided(self.buffer, offset, tuple(shape), tuple(strides))

    def broadcast(self, shape: Sequence[int]) -> Strided:
        """As NumPy does it, axes aligned at the end."""
        missing = len(shape) - len(self.shape)
        strides = [0] * missing
        # A value's leading axes beyond the shape have one entry each.
        own = zip(self.shape[max(0, -missing) :], self.strides[max(0, -missing) :], strict=True)
        for wanted, (mine, stride) in zip(shape[max(0, missing) :], own, strict=True):
            strides.append(stride if mine == wanted else 0)
        return Strided(self.buffer, self.offset, tuple(shape), tuple(strides))
