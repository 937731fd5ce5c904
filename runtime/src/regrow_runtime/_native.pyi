from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Damaged(ValueError):
    pass

def encode_mask(keep: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], rows: int, columns: int, inner: int) -> bytes:
    """
    The coded positions of a mask of 0 and 1, (rows * columns * inner,) uint8.
    """

def decode_mask(data: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], rows: int, columns: int, inner: int, keep: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu')]) -> int:
    """Fills `keep` with 0 and 1 and returns how many are 1; raises Damaged."""

def encode_values(values: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], dtype: str, rows: int, keep: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> bytes:
    """
    The coded values, given as raw bytes, that the mask keeps (without one: all).
    """

def decode_values(data: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], dtype: str, rows: int, keep: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, out: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu')]) -> None:
    """
    Writes the kept values, raw bytes, where the mask keeps them; raises Damaged.
    """

def known_kernels() -> list[str]:
    """Instruction sets of this processor, the best first."""

class Geometry:
    def __init__(self, arg0: int, arg1: Sequence[int], arg2: Sequence[int], arg3: int, /) -> None: ...

    @property
    def row(self) -> int: ...

    @property
    def plane(self) -> int: ...

    @property
    def first(self) -> int: ...

    @property
    def size(self) -> int: ...

class View:
    def __init__(self, arg0: int, arg1: int, arg2: Sequence[int], arg3: Sequence[int], /) -> None: ...

class Program:
    def __init__(self, lanes: int, threads: int, apart: bool, isa: str) -> None: ...

    def buffer(self, arg: int, /) -> int: ...

    def constant(self, arg: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], /) -> int: ...

    def conv(self, arg0: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order='C', device='cpu', writable=False)], arg1: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], arg2: int, arg3: Sequence[int], arg4: Sequence[int], arg5: Sequence[int], arg6: Geometry, arg7: int, arg8: Geometry, arg9: int, arg10: int, arg11: float, arg12: float, /) -> None: ...

    def copy(self, arg0: View, arg1: View, /) -> None: ...

    def unary(self, arg0: str, arg1: float, arg2: float, arg3: View, arg4: View, /) -> None: ...

    def binary(self, arg0: str, arg1: View, arg2: View, arg3: View, arg4: float, arg5: float, /) -> None: ...

    def pool(self, arg0: Sequence[int], arg1: Sequence[int], arg2: Sequence[int], arg3: Sequence[int], arg4: bool, arg5: bool, arg6: View, arg7: View, /) -> None: ...

    def adaptive_pool(self, arg0: View, arg1: View, /) -> None: ...

    def mean(self, arg0: View, arg1: int, arg2: View, /) -> None: ...

    def softmax(self, arg0: View, arg1: View, arg2: bool, /) -> None: ...

    def layer_norm(self, arg0: View, arg1: int, arg2: float, arg3: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], arg4: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], arg5: View, /) -> None: ...

    def input(self, arg: View, /) -> None: ...

    def output(self, arg: View, /) -> None: ...

    def finish(self) -> None: ...

    def run(self, arg0: Sequence[Annotated[NDArray[numpy.float32], dict(order='C', device='cpu', writable=False)]], arg1: Sequence[Annotated[NDArray[numpy.float32], dict(order='C', device='cpu')]], arg2: int, /) -> None: ...

    def profile(self, arg: int, /) -> list[float]: ...

    def peak(self) -> float: ...

    @property
    def images(self) -> int: ...

    @property
    def turns(self) -> int: ...

    @property
    def useful(self) -> list[float]: ...

    @property
    def bytes(self) -> int: ...
