"""Unpacking an archive without trusting it."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path

from regrow.core.errors import RegrowError


def unpack(archive: Path, into: Path) -> None:
    """Write the files and folders of a gzipped tar file below a folder.

    Only contents are taken: no links, devices, owners or permissions. That is stricter than
    the standard library's "data" filter, and the same on every Python version.

    Args:
        archive: the gzipped tar file.
        into: an existing, empty folder.

    Raises:
        RegrowError: a member is a link or a device or points outside of `into` (nothing has
            been written then), or the archive is damaged.
    """
    base = into.resolve()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = tar.getmembers()
            for member in members:
                _check(member, archive, base)
            for member in members:
                target = base / member.name
                content = tar.extractfile(member)
                if content is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as out:
                    shutil.copyfileobj(content, out)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise RegrowError(
            f"{archive} cannot be unpacked ({error}). Delete it and download it again."
        ) from error


def _check(member: tarfile.TarInfo, archive: Path, base: Path) -> None:
    if not (member.isfile() or member.isdir()):
        what = "neither a file nor a folder"
    elif not (base / member.name).resolve().is_relative_to(base):
        what = "outside of the folder to unpack into"
    else:
        return
    raise RegrowError(
        f"{archive} is refused and nothing of it was unpacked: its member {member.name!r} is "
        f"{what}. Delete it and download the set from its authors."
    )
