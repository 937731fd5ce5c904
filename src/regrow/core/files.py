"""Writing files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from regrow.core.errors import RegrowError

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some of your quota or choose another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) or choose another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "create the folder first",
    errno.EISDIR: "give the name of a file, not of a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_atomic(
    path: str | os.PathLike[str],
    content: bytes | Iterable[bytes],
    *,
    check: Callable[[Path], None] | None = None,
) -> int:
    """Write a file so that at any moment `path` holds all of the old content or all of the new.

    The bytes go to a temporary file in the same folder, reach the disk (fsync), and then take the
    name `path` in one step. Whatever goes wrong before that step removes the temporary file and
    leaves a previous file as it was. A symbolic link is followed, not replaced.

    Args:
        path: the file to write; its folder must exist.
        content: the bytes, or chunks of them in order.
        check: called with the temporary file before it takes the name; an exception refuses it.

    Returns:
        The number of bytes written.

    Raises:
        RegrowError: the disk refused (full, quota, file-size limit, permission, no such folder), or
            `path` is a device or a pipe.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        raise RegrowError(f"{os.fspath(path)} is a device or a pipe; give the name of a file.")
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    chunks = (content,) if isinstance(content, bytes) else content
    try:
        size = 0
        with open(temporary, "xb") as file:
            for chunk in chunks:
                size += file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise _refused(path, error) from error
        raise
    _sync_folder(target.parent)
    return size


def require_space(folder: str | os.PathLike[str], needed: int) -> None:
    """Refuse early when a disk has too little free space for what is about to be written.

    Args:
        folder: an existing folder on that disk.
        needed: bytes that will be written; a file that is replaced counts in full, since the old
            one stays until the new one is whole.

    Raises:
        RegrowError: there is less free space than `needed`, or the folder cannot be asked.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _refused(folder, error) from error
    if free < needed:
        raise RegrowError(
            f"{os.fspath(folder)}: {needed:,} bytes are needed and {free:,} are free; "
            "free some space or choose another disk."
        )


def _refused(path: str | os.PathLike[str], error: OSError) -> RegrowError:
    cause = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and try again")
    return RegrowError(f"{os.fspath(path)} cannot be written: {cause}; {remedy}.")


def _sync_folder(folder: Path) -> None:
    """Make the new name durable; the file is whole either way, and some systems cannot do this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
