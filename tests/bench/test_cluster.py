"""A study on a Ray cluster: the same records as here, failures noted, errors in seconds."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from regrow.bench.comparison.cluster import run_on_cluster
from regrow.bench.comparison.evidence import gather
from regrow.bench.comparison.study_file import study_of
from regrow.bench.store import Store
from regrow.bench.study import run_cells
from regrow.core.errors import RegrowError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = """
[[grid]]
task = "digits"
strategies = ["one_shot"]
sparsities = [0.9]
seeds = 1
epochs = 2
training = { dense_epochs = 1 }
"""


def told(store: Store, cells: Any) -> list[tuple[Any, ...]]:
    return [row.values()[:-1] for row in gather(cells, store)]  # without seconds


def test_two_nodes_give_the_records_of_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    cells = study_of(tomllib.loads(TEXT), "a", "a").cells()
    every = list(cells.values())
    here, there = (Store(tmp_path / name, device="cpu") for name in ("here", "there"))
    run_cells(every, here)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        lines: list[str] = []
        options: dict[str, Any] = {"data_dir": None, "device": "cpu", "tell": lines.append}
        run_on_cluster(TEXT, every, there, cluster.address, **options)
        assert len(lines) == len(every) + 1
        assert told(there, cells) == told(here, cells)
        for cell in every:
            one, other = here.state(cell)[0], there.state(cell)[0]
            assert all(one[name].equal(other[name]) for name in one)
        run_on_cluster(TEXT, every, there, cluster.address, **options)
        assert len(lines) == len(every) + 1  # nothing is done twice
        failing = TEXT.replace("dense_epochs = 1", "dense_epochs = 1, lr = 1e30")
        bad = study_of(tomllib.loads(failing), "a", "a").cells()
        lines.clear()
        run_on_cluster(failing, list(bad.values()), there, cluster.address, **options)
        assert all("failed" in line and "loss" in line for line in lines)
    finally:
        cluster.shutdown()


def test_what_cannot_be_reached_is_said_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    options: dict[str, Any] = {"data_dir": None, "device": "cpu", "tell": print}
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RegrowError, match="pip install 'regrow\\[cluster\\]'"):
        run_on_cluster(TEXT, [], store, "local", **options)
    idle = type("Ray", (), {"is_initialized": staticmethod(lambda: False)})
    monkeypatch.setitem(sys.modules, "ray", idle)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(RegrowError, match="cannot be reached"):
        run_on_cluster(TEXT, [], store, f"ray://127.0.0.1:{port}", **options)
    assert time.monotonic() - began < 15
    with pytest.raises(RegrowError, match="is no address"):
        run_on_cluster(TEXT, [], store, "somewhere", **options)
