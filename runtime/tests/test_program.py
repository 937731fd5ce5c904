"""A native program: written once, then run."""

from __future__ import annotations

import numpy as np
import pytest

from regrow_runtime import _native
from regrow_runtime.network import instruction_sets


def test_a_program_runs_when_it_is_finished_and_is_finished_once() -> None:
    program = _native.Program(1, 1, False, instruction_sets()[0])
    views = [_native.View(program.buffer(3), 0, [3], [1]) for _ in range(2)]
    program.input(views[0])
    program.copy(*views)
    program.output(views[1])
    given, found = np.float32([1, 2, 3]), np.zeros(3, np.float32)
    with pytest.raises(RuntimeError, match=r"not finished; call finish\(\)"):
        program.run([given], [found], 1)
    with pytest.raises(RuntimeError, match="not finished"):
        program.profile(1)
    assert not found.any()
    program.finish()
    program.run([given], [found], 1)
    assert found.tolist() == [1, 2, 3]
    assert program.turns == 1
    with pytest.raises(RuntimeError, match="no step can follow"):
        program.copy(*views)
