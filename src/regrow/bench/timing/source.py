"""What a deploy file holds, dense: the form from which every other engine starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from regrow.core.errors import RegrowError
from regrow.export.container import version
from regrow.export.runtime import runtime

if TYPE_CHECKING:
    from regrow_runtime.graph import Graph

Floats = npt.NDArray[np.float32]
_DEPLOY = 2  # the format that the runtime reads


@dataclass(frozen=True, eq=False)
class Source:
    """A network with its zeros.

    Attributes:
        graph: what it computes.
        arrays: float32, by the names that the graph uses.
        shapes: of every value, without the batch axis.
    """

    graph: Graph
    arrays: Mapping[str, Floats]
    shapes: Mapping[str, tuple[int, ...]]

    def inputs(self, batch: int, seed: int = 0) -> list[Floats]:
        """Standard normal inputs, each (batch, ...); the same for the same arguments."""
        random = np.random.default_rng((seed, batch))
        return [
            random.standard_normal((batch, *shape), dtype=np.float32)
            for _, shape, _ in self.graph.inputs
        ]


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read a deploy file.

    Raises:
        RegrowError: the runtime is not installed; the file is missing, damaged, of format 1, or
            holds no graph that can run.
    """
    native = runtime()
    if not os.path.exists(path):
        raise RegrowError(f"there is no {os.fspath(path)}; give a file that `regrow pack` made.")
    if version(path) == 1:
        raise RegrowError(
            f"{os.fspath(path)} holds weights alone (format 1); make a file that runs of it with "
            "`regrow pack`."
        )
    try:
        contents = native.file.read(path)
    except ValueError as error:  # the runtime's own; its message names the file and the remedy
        raise RegrowError(str(error)) from error
    if contents.graph is None:
        raise RegrowError(
            f"{os.fspath(path)} holds no graph; pack the model again with `regrow pack`, or with "
            "regrow.export.deploy.pack(model, path, example)."
        )
    try:
        return source_of(contents)
    except ValueError as error:
        raise RegrowError(f"{os.fspath(path)}: {error}") from error


def source_of(contents: object) -> Source:
    """The same of `regrow_runtime.file.Contents` in memory."""
    from regrow_runtime.check_graph import shapes_of

    graph, stored = contents.graph, contents.arrays  # type: ignore[attr-defined]
    shapes = shapes_of(graph, stored)
    used = {name for node in graph.nodes for name in node.arrays.values()}
    return Source(graph, {name: stored[name].floats() for name in sorted(used)}, shapes)
