from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import regrow
from regrow.core import files
from regrow.core.errors import RegrowError
from regrow.core.files import require_space, write_atomic

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(regrow.__file__).parents[1])}


def test_it_writes_bytes_or_chunks_and_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    assert write_atomic(path, b"abc") == 3
    assert path.read_bytes() == b"abc"
    assert write_atomic(str(path), iter([b"", b"de", b"f" * 100_000])) == 100_002
    assert path.read_bytes() == b"de" + b"f" * 100_000
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomic(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "real")
    write_atomic(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "real").read_bytes() == b"new"


def test_the_data_reach_the_disk_before_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def spy_replace(source: str, target: str) -> None:
        events.append("replace")
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", spy_fsync)
    monkeypatch.setattr(files.os, "replace", spy_replace)
    write_atomic(tmp_path / "a", b"abc")
    if sys.platform == "linux":
        assert events == ["file", "replace", "folder"]
    else:
        assert events[1] == "replace"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refusal_leaves_the_previous_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, call, refuse)
    with pytest.raises(RegrowError) as caught:
        write_atomic(path, b"new")
    message = str(caught.value)
    assert str(path) in message
    assert os.strerror(code) in message
    remedy = files._REMEDIES.get(code, "try again")
    assert remedy in message
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_real_limit_on_file_sizes(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    script = """
import resource, signal, sys
from regrow.core.errors import RegrowError
from regrow.core.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_atomic(sys.argv[1], iter([b"x" * 6_000] * 100))
except RegrowError as error:
    sys.exit(f"refused: {error}")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"refused: {path} cannot be written")
    assert "ulimit -f" in done.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match="create the folder first"):
        write_atomic(tmp_path / "no" / "a", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RegrowError, match="create the folder first"):
        write_atomic(tmp_path / "file" / "a", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RegrowError, match="the name of a file"):
        write_atomic(tmp_path / "folder", b"")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_an_interruption_or_a_failing_check_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, interrupted())

    def check(written: Path) -> None:
        assert written.parent == tmp_path
        raise RegrowError(f"refused {written.read_bytes()!r}")

    with pytest.raises(RegrowError, match="refused b'new'"):
        write_atomic(path, b"new", check=check)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_require_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "disk_usage", lambda _: free)
        require_space(tmp_path, 1000)
        with pytest.raises(RegrowError, match="1,001 bytes are needed and 1,000 are free"):
            require_space(tmp_path, 1001)
    with pytest.raises(RegrowError, match="free some space") as caught:
        require_space(tmp_path, 2**62)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(RegrowError, match="create the folder first"):
        require_space(tmp_path / "no", 0)
