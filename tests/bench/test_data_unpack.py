"""Archives that try to write where they should not, and broken ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from regrow.bench.data.unpack import unpack
from regrow.core.errors import RegrowError


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a tar file, with permissions that must not survive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, target, len(content), 0o6777
    return info, content


GOOD = [
    member("set/a.bin", b"a" * 5000),
    member("set/deep", kind=tarfile.DIRTYPE),
    member("set/deep/b.bin", b"b"),
]


def write(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, mode="w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def into(tmp_path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_files_and_folders_are_written_without_permissions(into, tmp_path):
    unpack(write(tmp_path / "a.tar.gz", GOOD), into)
    assert (into / "set" / "a.bin").read_bytes() == b"a" * 5000
    assert (into / "set" / "deep" / "b.bin").read_bytes() == b"b"
    assert (into / "set" / "a.bin").stat().st_mode & 0o7111 == 0


EVIL = {
    "parent": [member("../evil", b"x")],
    "deep parent": [member("set/../../evil", b"x")],
    "parent folder": [member("../evil", kind=tarfile.DIRTYPE)],
    "sibling with the same beginning": [member("../into-evil", b"x")],
    "symlink": [member("set/s", kind=tarfile.SYMTYPE, target="../..")],
    "through a symlink": [
        member("set/s", kind=tarfile.SYMTYPE, target="../.."),
        member("set/s/evil", b"x"),
    ],
    "symlink that stays inside": [member("set/s", kind=tarfile.SYMTYPE, target="a.bin")],
    "hard link": [member("set/h", kind=tarfile.LNKTYPE, target="../../a.tar.gz")],
    "fifo": [member("set/f", kind=tarfile.FIFOTYPE)],
    "device": [member("set/d", kind=tarfile.CHRTYPE)],
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_a_dangerous_member_refuses_the_whole_archive(evil, into, tmp_path):
    archive = write(tmp_path / "a.tar.gz", GOOD + evil)
    with pytest.raises(RegrowError, match="is refused and nothing of it was unpacked"):
        unpack(archive, into)
    assert list(into.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"into", "a.tar.gz"}


def test_an_absolute_member_is_refused(into, tmp_path):
    outside = tmp_path / "evil"
    archive = write(tmp_path / "a.tar.gz", [*GOOD, member(str(outside), b"x")])
    with pytest.raises(RegrowError, match="outside of the folder"):
        unpack(archive, into)
    assert not outside.exists()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no archive at all"])
def test_a_broken_archive_is_named(damage, into, tmp_path):
    archive = write(tmp_path / "a.tar.gz", GOOD)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(RegrowError, match=r"a\.tar\.gz cannot be unpacked"):
        unpack(archive, into)
