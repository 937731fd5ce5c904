"""Two ranks with data of their own hold the same masks and weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_ranks(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("ddp_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(worker), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["data"] != second["data"]
    assert first["checksums"] == second["checksums"]
    assert len(set(first["checksums"])) == 4  # the cut, and three more events
    assert first["weights"] == second["weights"]
    assert first["kept"] == round(0.4 * 572)
    assert first["exchanged"] == second["exchanged"]
    *checksums, explored, kept, _ = first["exchanged"]
    assert len(set(checksums)) >= 4  # the start, two cuts and an exchange at least
    assert kept == round(0.2 * 572)
    assert 0.5 <= explored < 1
    assert first["quantised"] == second["quantised"]
    assert first["quantised"][-1] > 0.2
    for rank in (first, second):
        assert "the ranks hold different masks" in rank["tampered"]
