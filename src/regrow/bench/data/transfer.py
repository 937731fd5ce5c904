"""An HTTP transfer that continues where an earlier one stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import requests
import urllib3

from regrow.core.errors import RegrowError

Progress = Callable[[str, int, int], None]
"""Called with the file's name, its bytes so far and its bytes in all."""

TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two packets
ATTEMPTS = 3
CHUNK = 1 << 16


def transfer(url: str, part: Path, size: int, progress: Progress) -> None:
    """Bring `part` to its full size, keeping the bytes that it has.

    A connection that breaks is taken up again from the last byte, a few times; after that the
    bytes stay in `part`, and the next call continues there. A server that ignores the request
    for a range sends the file from its start.

    Args:
        url: the file's address.
        part: where to write; may hold the file's beginning already.
        size: bytes of the whole file.
        progress: told of the bytes so far, from 0 or the point of continuation.

    Raises:
        RegrowError: the server answers with an error or a file of another size, or the
            connection broke too often.
        requests.RequestException: the server cannot be reached.
    """
    if _length(part) > size:
        part.unlink()
    for _ in range(ATTEMPTS):
        if _length(part) < size:
            _receive(url, part, size, progress)
    if _length(part) < size:
        raise RegrowError(
            f"the connection to {url} broke {ATTEMPTS} times, at {_length(part):,} of {size:,} "
            f"bytes. What arrived is kept in {part}: the same command continues there."
        )


def _receive(url: str, part: Path, size: int, progress: Progress) -> None:
    """One request for the bytes that `part` lacks; returns early when the connection breaks."""
    start = _length(part)
    # A transparently compressed answer would make the offsets meaningless.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status, served = response.status_code, response.headers.get("Content-Range", "")
        continues = status == 206 and served.startswith(f"bytes {start}-")
        if start and not continues and status in (206, 416):
            part.unlink()  # the server cannot continue from here: the next request starts over
            return
        if not continues and status != 200:
            raise RegrowError(f"{url} answered with HTTP status {status} ({response.reason}).")
        whole = response.headers.get("Content-Length", "")
        announced = served.rpartition("/")[2] if continues else whole
        if announced.isdigit() and int(announced) != size:
            raise RegrowError(
                f"{url} serves {int(announced):,} bytes where {size:,} are expected: another "
                "version of the file, or the page of a proxy."
            )
        _write(response.raw, part, start if continues else 0, size, progress)


def _write(
    stream: urllib3.BaseHTTPResponse, part: Path, start: int, size: int, progress: Progress
) -> None:
    name, done = part.name.removesuffix(".part"), start
    progress(name, done, size)
    with part.open("ab" if start else "wb") as out:
        try:
            for chunk in stream.stream(CHUNK, decode_content=False):
                # A longer answer is cut: its checksum tells that it is wrong.
                out.write(chunk[: size - done])
                done = min(size, done + len(chunk))
                progress(name, done, size)
                if done == size:
                    return
        except urllib3.exceptions.HTTPError:
            return  # broken or stalled: the length of `part` says how far it got


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
