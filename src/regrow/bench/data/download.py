"""Downloading a data set, when asked to and never otherwise."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch
import requests

from regrow.bench.data.sources import RemoteFile, Source, source
from regrow.bench.data.transfer import Progress, transfer
from regrow.bench.data.unpack import unpack
from regrow.core.errors import RegrowError


def get(
    name: str,
    root: Path | str,
    *,
    base_url: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a data set, check it and unpack it; a set that is there is left as it is.

    Args:
        name: a name of `sources.SOURCES`.
        root: the data directory; made if needed.
        base_url: a mirror that serves the same file names; default: the authors' addresses.
        progress: told of each file's name, its bytes so far and its bytes in all.

    Returns:
        the folder below `root` that holds the set's files.

    Raises:
        RegrowError: no such set, no network, no disk space, a damaged download, or a folder
            of that name that holds something else. The message says how to go on.
    """
    row, root = source(name), Path(root).absolute()
    return _fetch(row, root, _by_hand(row, root), base_url, progress)


def fetch(
    source: Source, root: Path, *, base_url: str | None = None, progress: Progress | None = None
) -> Path:
    """What `get` does, for one row and callers who may not know the command: see there."""
    root = root.absolute()
    return _fetch(source, root, source.how_to_get(root), base_url, progress)


def _by_hand(source: Source, root: Path) -> str:
    """The way that is left where the download has failed."""
    urls = " ".join(file.url for file in source.remote)
    files = ", ".join(source.train + source.test)
    unpacked = " (unpacked)" if source.archive else ""
    return (
        f"Or put the files by hand at {root / source.folders[0]}: {files}, from {urls}{unpacked}."
    )


def _fetch(
    source: Source, root: Path, advice: str, base_url: str | None, progress: Progress | None
) -> Path:
    found = source.locate(root)
    if found is not None:
        return found
    target = root / source.folders[0]
    if target.exists():
        raise RegrowError(
            f"{target} exists, but it lacks {', '.join(source.lacks(target))}. "
            f"Move or delete it, then run `regrow data get {source.name}` again."
        )
    downloads = root / f".{source.name}.download"  # survives a failure, so that it can go on
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        _check_space(source, downloads)
        for file in source.remote:
            url = file.url if base_url is None else f"{base_url.rstrip('/')}/{file.name}"
            try:
                _download(file, url, downloads, progress or _silent)
            except RegrowError as error:
                raise RegrowError(f"{error} {advice}") from error
        _install(source, downloads, target)
    except OSError as error:
        raise RegrowError(f"cannot write {source.title} to {root}: {error}.") from error
    return target


def _download(file: RemoteFile, url: str, folder: Path, progress: Progress) -> None:
    """Put one file, with the right checksum, into `folder`."""

    def resume(url: str, output_file: str, _: object) -> None:
        part = folder / f"{file.name}.part"
        transfer(url, part, file.size, progress)
        os.replace(part, output_file)

    try:
        with _quiet(pooch.get_logger()):
            pooch.retrieve(url, f"sha256:{file.sha256}", file.name, folder, downloader=resume)
    except requests.RequestException as error:
        raise RegrowError(
            f"cannot get {url}: {_cause(error)}. Check the network and the proxy settings."
        ) from error
    except RegrowError:
        raise
    except ValueError as error:  # pooch compares the checksums, and names both
        raise RegrowError(
            f"{url}: {error} If a second try ends like this, what the server sends is not the "
            "published file: use another network or mirror."
        ) from error


def _cause(error: requests.RequestException) -> str:
    """What went wrong in plain words; the libraries' own texts nest one another's."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused the connection"
    if isinstance(error, requests.Timeout):
        return "the connection timed out"
    return "the server cannot be reached"


def _install(source: Source, downloads: Path, target: Path) -> None:
    """Make `target` from the downloaded files in one step, and remove these."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{source.name}.") as scratch:
        made = Path(scratch) / target.name
        if source.archive:
            for file in source.remote:
                unpack(downloads / file.name, Path(scratch))
        else:
            made.mkdir()
            for file in source.remote:
                os.replace(downloads / file.name, made / file.name)
        lacks = source.lacks(made)
        if lacks:
            raise RegrowError(f"the download of {source.title} lacks {', '.join(lacks)}.")
        os.replace(made, target)
    shutil.rmtree(downloads)


def _check_space(source: Source, downloads: Path) -> None:
    """Refuse to start what cannot be finished."""
    there = sum(path.stat().st_size for path in downloads.iterdir() if path.is_file())
    total = sum(file.size for file in source.remote) + source.unpacked
    needed, free = max(0, total - there), shutil.disk_usage(downloads).free
    if free < needed:
        raise RegrowError(
            f"{source.title} needs {needed / 1e6:,.0f} MB in {downloads.parent}, where "
            f"{free / 1e6:,.0f} MB are free. Free some, or name another data directory."
        )


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep a library's informative lines off the terminal, which belongs to `progress`."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _silent(name: str, done: int, total: int) -> None:
    """No progress wanted."""
