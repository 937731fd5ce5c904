"""What the terminal says where a command ends early: the keyboard, the network, patience."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from blobs_example import call

from regrow.cli.progress import Progress


@pytest.mark.parametrize("begun", [False, True])
def test_the_keyboard_before_and_after_the_recipe_is_written(
    begun: bool, blobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        if begun:
            Path("run").mkdir()
            Path("run/recipe.toml").write_text("recipe = 'one_shot'")
        raise KeyboardInterrupt

    monkeypatch.setattr("regrow.bench.run.run", interrupted)
    done = call("run", "one_shot", "--task", blobs, "--out", "run")
    assert done.code == 130
    assert ("regrow resume run" in done.err) == begun
    assert "stopped" in done.err


def test_the_keyboard_during_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, *_: object) -> None:
        if name == "regrow.cli.app":
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "regrow.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    done = call("list")
    assert (done.code, done.err) == (130, "error: stopped.\n")


def test_failed_downloads_do_not_advise_themselves(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound but not listening: connections are refused.
        mirror = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = call("data", "get", "cifar10", "--data-dir", tmp_path, "--base-url", mirror)
    assert done.code == 2
    assert "Connection refused" in done.err
    assert f"put the files by hand at {tmp_path}" in done.err
    assert "regrow data get" not in done.err
    assert "object at" not in done.err
    digits = call("data", "get", "digits")
    assert digits.code == 0
    assert "no download" in digits.out


def test_a_bar_ends_complete_where_patience_stopped_early() -> None:
    progress = Progress(quiet=True)
    epoch = {"kind": "epoch", "epoch": 4, "sparsity": 0.9, "validation_accuracy": 0.5}
    with progress:
        for arm in ("first", "second"):
            progress({"kind": "arm", "arm": arm, "epochs": 9, "epoch": 0})
            progress({**epoch, "arm": arm})
        assert [bar.total for bar in progress._bars.tasks] == [4, 9]
    assert [(bar.completed, bar.total) for bar in progress._bars.tasks] == [(4, 4), (4, 4)]
