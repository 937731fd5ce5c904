"""A packed network that can be called."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regrow_runtime import _native
from regrow_runtime.check_graph import check_graph
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.file import Contents, read
from regrow_runtime.fold import Weighted, fold
from regrow_runtime.memory import LANES, conv_planes
from regrow_runtime.plan import plan

_MOST_BYTES = 16 * 2**30  # of a program: a small file may ask for any amount
_PROGRAMS = 6  # as many as there are powers of two up to LANES, and one more for large batches
# Where each thread takes images of its own, it reads all weights for fewer of them at once; where
# all share, they wait for each other after every layer. Which is faster was measured.
_FEW_WEIGHTS = 128 * 1024  # are read from its own cache by every thread
_FEW_ALONE = 2_000_000  # with one image a thread
_FEW_WIDE = 1_000_000, 16_000_000  # weights and multiply-adds, with half of LANES


class _Way(NamedTuple):
    """So many images side by side, by all threads together or by each apart."""

    lanes: int
    apart: bool


class Network:
    """Computes a graph's outputs, from any thread, for batches of any size.

    A batch is computed in groups of `LANES` images side by side and a last, smaller one, which is
    filled up to a power of two. Threads take a group each where there are enough of them, or
    smaller groups where that is faster; else they share the work on one. The first batch of each
    size takes longer: its program is planned then.

    Attributes:
        metadata: what the packer wrote down.
        isa: the instruction set in use.
    """

    def __init__(self, contents: Contents, *, threads: int | None = None, isa: str | None = None):
        """
        Args:
            contents: of a file, with a graph.
            threads: that share the work of one call; by default the processors of this process.
            isa: one of `instruction_sets()`; by default the first.

        Raises:
            RuntimeFileError: there is no graph, or no such instruction set.
        """
        if contents.graph is None:
            raise RuntimeFileError(
                "the file holds weights but no graph; pack the model with an example input."
            )
        self.threads = _threads() if threads is None else threads
        if self.threads < 1:
            raise RuntimeFileError(f"threads is at least 1; got {threads}.")
        known = instruction_sets()
        self.isa = known[0] if isa is None else isa
        if self.isa not in known:
            raise RuntimeFileError(f"this processor has no {isa!r}; it has {', '.join(known)}.")
        self.metadata: Mapping[str, Any] = contents.metadata
        self._graph = contents.graph
        stored = {name: (one.values.shape, one.dtype) for name, one in contents.arrays.items()}
        self._shapes = check_graph(contents.graph, stored)
        used = {name for node in contents.graph.nodes for name in node.arrays.values()}
        self._arrays = {name: contents.arrays[name].floats() for name in used}
        self._steps = fold(self._graph, self._arrays, self._shapes)
        layers = [step for step in self._steps if isinstance(step, Weighted)]
        kept = [int(np.count_nonzero(step.weight)) for step in layers]
        self._kept = sum(kept)
        self._work = sum(
            count * math.prod(conv_planes(step, self._shapes)[1][1:])
            for count, step in zip(kept, layers, strict=True)
        )
        self._programs: OrderedDict[_Way, _native.Program] = OrderedDict()
        self._modules: list[str] = []
        self._lock = threading.Lock()

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each input, without the batch."""
        return {name: shape for name, shape, _ in self._graph.inputs}

    def __call__(self, *inputs: npt.ArrayLike) -> Any:
        """The outputs for a batch.

        Args:
            inputs: float32 (or what NumPy makes float32 of), each (batch, ...).

        Returns:
            A float32 array (batch, ...); a tuple of them where the network has several outputs.

        Raises:
            RuntimeFileError: the inputs are of other shapes than the network's.
        """
        given = [np.ascontiguousarray(each, np.float32) for each in inputs]
        batch = self._batch(given)
        outputs = [
            np.empty((batch, *self._shapes[name]), np.float32) for name in self._graph.outputs
        ]
        start = 0
        while start < batch:
            way, images = self._way(batch - start)
            end = start + images
            self._program(way).run(
                [each[start:end] for each in given], [each[start:end] for each in outputs], images
            )
            start = end
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def profile(self, batch: int = 1, repeats: int = 20) -> list[dict[str, Any]]:
        """The time of each step.

        Args:
            batch: images at once; as many as are computed together are, `LANES` at least where
                there are as many.
            repeats: of which the fastest counts.

        Returns:
            For each: module, seconds (the least of the repeats), multiply_adds (of kept weights)
            and peak_share, their rate over the highest that this processor reached in a dense
            loop that stays in its first cache.
        """
        program = self._program(self._way(batch)[0])
        seconds, useful, peak = program.profile(repeats), program.useful, program.peak()
        images = program.images
        return [
            {
                "module": module,
                "seconds": second,
                "multiply_adds": work * images,
                "peak_share": work * images / (second * peak) if second else 0.0,
            }
            for module, second, work in zip(self._modules, seconds, useful, strict=True)
        ]

    def _way(self, batch: int) -> tuple[_Way, int]:
        """How to compute the next images of so many, and how many."""
        if self.threads > 1:
            at_once = LANES * self.threads
            if batch >= at_once:
                return _Way(LANES, apart=True), batch // at_once * at_once
            each = _lanes(-(-batch // self.threads))
            if batch > 1 and self._apart(each):
                return _Way(each, apart=True), batch
        if batch >= LANES:
            return _Way(LANES, apart=False), batch // LANES * LANES
        return _Way(_lanes(batch), apart=False), batch

    def _apart(self, lanes: int) -> bool:
        """Whether threads with so many images each are faster than all together."""
        if self._kept <= _FEW_WEIGHTS:
            return True
        if lanes == 1:
            return self._kept <= _FEW_ALONE
        if lanes == LANES // 2:
            return self._kept <= _FEW_WIDE[0] and self._work <= _FEW_WIDE[1]
        return lanes < LANES // 2

    def _program(self, way: _Way) -> _native.Program:
        """Its program; the last few that were used are kept."""
        with self._lock:
            if way not in self._programs:
                self._programs[way], self._modules = plan(
                    self._graph,
                    self._steps,
                    self._arrays,
                    self._shapes,
                    way.lanes,
                    self.threads,
                    way.apart,
                    self.isa,
                )
                needed = self._programs[way].bytes
                if needed > _MOST_BYTES:
                    images = self._programs[way].images
                    del self._programs[way]
                    raise RuntimeFileError(
                        f"the network needs {needed / 2**30:.1f} GiB for {images} images at once, "
                        f"more than {_MOST_BYTES / 2**30:.0f}; give smaller batches or images."
                    )
                if len(self._programs) > _PROGRAMS:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(way)
            return self._programs[way]

    def _batch(self, given: list[npt.NDArray[np.float32]]) -> int:
        wanted = self._graph.inputs
        if len(given) != len(wanted):
            raise RuntimeFileError(f"the network takes {len(wanted)} inputs; got {len(given)}.")
        for array, (name, shape, _) in zip(given, wanted, strict=True):
            if array.ndim == 0 or array.shape[1:] != shape:
                expected = ", ".join(["batch", *map(str, shape)])
                raise RuntimeFileError(
                    f"input {name!r} has shape {array.shape}; the network takes ({expected})."
                )
        sizes = {len(array) for array in given}
        if len(sizes) > 1:
            raise RuntimeFileError(f"the inputs have batches of {sorted(sizes)}; give equal ones.")
        return sizes.pop() if sizes else 0


def load(
    path: str | os.PathLike[str], *, threads: int | None = None, isa: str | None = None
) -> Network:
    """Load a packed network; nothing in a file is executed.

    Raises:
        RuntimeFileError: the file is damaged or holds no graph; see `Network`.
    """
    return Network(read(path), threads=threads, isa=isa)


def instruction_sets() -> list[str]:
    """Those that this processor has and this build knows, the fastest first."""
    return list(_native.known_kernels())


def _lanes(images: int) -> int:
    """The next power of two: registers are filled better, and programs are fewer."""
    return 1 << (images - 1).bit_length()


def _threads() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
