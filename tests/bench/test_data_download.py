"""Downloads from a server on this machine that misbehaves in every way the tests ask for."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests

from regrow.bench.data import download, transfer
from regrow.bench.data.download import fetch
from regrow.bench.data.sources import CIFAR10, FASHION_MNIST, RemoteFile, Source
from regrow.core.errors import RegrowError

FILES = {
    name: np.random.default_rng(n).bytes(60_000)
    for n, name in enumerate(CIFAR10.train + CIFAR10.test)
}


def tar_of(members: dict[str, bytes]) -> bytes:
    """A gzipped tar file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


ARCHIVE = tar_of({f"cifar-10-batches-bin/{name}": content for name, content in FILES.items()})


@dataclass
class Server:
    """What it serves, how it answers the coming requests, and what it was asked."""

    content: dict[str, bytes]
    manners: list[str] = field(default_factory=list)
    always: str = "well"
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Server({"cifar-10-binary.tar.gz": ARCHIVE})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.ranges.append(self.headers["Range"])
            manner = state.manners.pop(0) if state.manners else state.always
            body = state.content.get(self.path.lstrip("/"))
            if body is None or manner == "404":
                self.send_error(404)
                return
            start = 0
            if self.headers["Range"] and manner != "no range":
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if manner == "416" and self.headers["Range"]:
                self.send_error(416)
                return
            if manner == "corrupt":
                body = body[:5000] + bytes([body[5000] ^ 1]) + body[5001:]
            if manner == "short":
                body = body[:1000]
            self.send_response(206 if start else 200)
            if start:
                served = start + 1 if manner == "wrong range" else start
                self.send_header("Content-Range", f"bytes {served}-{len(body) - 1}/{len(body)}")
            if manner != "no length":
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            rest = body[start:]
            if manner == "cut":
                self.wfile.write(rest[: min(len(rest) - 1, 100_000)])
            elif manner == "stall":
                self.wfile.write(rest[:100_000])
                self.wfile.flush()
                time.sleep(0.8)
            elif manner == "no length":
                self.wfile.write(rest[:100_000])
            else:
                self.wfile.write(rest)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Tests print nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def cifar(archive: bytes = ARCHIVE) -> Source:
    """CIFAR-10's row, for a small archive."""
    sha256 = hashlib.sha256(archive).hexdigest()
    file = RemoteFile(CIFAR10.remote[0].url, sha256, len(archive))
    return replace(CIFAR10, remote=(file,), unpacked=400_000)


def refused(source: Source, root: Path, url: str) -> str:
    """The message of a download that fails, having left nothing that looks like the set."""
    with pytest.raises(RegrowError) as caught:
        fetch(source, root, base_url=url)
    assert not (root / source.folders[0]).exists()
    leftovers = [path.name for path in root.iterdir()]
    assert set(leftovers) <= {f".{source.name}.download"}
    return str(caught.value)


def part_of(root: Path) -> Path:
    return root / ".cifar10.download" / "cifar-10-binary.tar.gz.part"


def check_folder(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing else left


def test_download_checks_unpacks_and_reports(server, tmp_path, monkeypatch):
    seen, lines = [], []
    level = pooch.get_logger().level
    monkeypatch.setattr(pooch.get_logger(), "handle", lines.append)
    folder = fetch(
        cifar(), tmp_path / "new", base_url=server.url + "/", progress=lambda *a: seen.append(a)
    )
    assert folder == tmp_path / "new" / "cifar-10-batches-bin"
    check_folder(folder)
    assert server.ranges == [None]
    assert {(name, total) for name, _, total in seen} == {("cifar-10-binary.tar.gz", len(ARCHIVE))}
    done = [count for _, count, _ in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, len(ARCHIVE))
    assert len(done) > 3
    assert lines == []
    assert pooch.get_logger().level == level


def test_a_set_that_is_there_is_not_fetched_again(server, tmp_path):
    folder = fetch(cifar(), tmp_path, base_url=server.url)
    (folder / "test_batch.bin").write_bytes(b"the user's own subset")
    assert fetch(cifar(), tmp_path, base_url=server.url) == folder
    assert (folder / "test_batch.bin").read_bytes() == b"the user's own subset"
    assert len(server.ranges) == 1


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.manners = ["cut", "cut"]
    check_folder(fetch(cifar(), tmp_path, base_url=server.url))
    offsets = [int(asked.removeprefix("bytes=")[:-1]) for asked in server.ranges[1:]]
    assert server.ranges[0] is None
    assert len(offsets) == 2
    assert 0 < offsets[0] <= 100_000
    assert offsets[0] < offsets[1] <= offsets[0] + 100_000


def test_the_next_call_continues_from_the_partial_file(server, tmp_path):
    server.manners = ["cut"] * transfer.ATTEMPTS
    message = refused(cifar(), tmp_path, server.url)
    kept = part_of(tmp_path).read_bytes()
    assert 0 < len(kept) < len(ARCHIVE)
    assert kept == ARCHIVE[: len(kept)]
    assert f"{len(kept):,} of {len(ARCHIVE):,}" in message
    assert str(part_of(tmp_path)) in message
    seen = []
    folder = fetch(cifar(), tmp_path, base_url=server.url, progress=lambda *a: seen.append(a[1]))
    assert server.ranges[-1] == f"bytes={len(kept)}-"
    assert seen[0] == len(kept)
    check_folder(folder)


def test_a_complete_partial_file_needs_no_request(server, tmp_path):
    part_of(tmp_path).parent.mkdir()
    part_of(tmp_path).write_bytes(ARCHIVE)
    check_folder(fetch(cifar(), tmp_path, base_url=server.url))
    assert server.ranges == []


@pytest.mark.parametrize(
    ("manner", "requests_made"), [("no range", 1), ("416", 2), ("wrong range", 2)]
)
def test_a_server_that_cannot_continue_sends_it_all_again(manner, requests_made, server, tmp_path):
    part_of(tmp_path).parent.mkdir()
    part_of(tmp_path).write_bytes(b"x" * 5000)  # would spoil the checksum if it were kept
    server.manners = [manner]
    check_folder(fetch(cifar(), tmp_path, base_url=server.url))
    assert server.ranges == ["bytes=5000-", None][:requests_made]


def test_a_partial_file_that_is_too_long_is_dropped(server, tmp_path):
    part_of(tmp_path).parent.mkdir()
    part_of(tmp_path).write_bytes(ARCHIVE + b"x")
    check_folder(fetch(cifar(), tmp_path, base_url=server.url))
    assert server.ranges == [None]


def test_a_stalled_server_is_given_up_and_taken_up_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", (1.0, 0.2))
    server.manners = ["stall"]
    check_folder(fetch(cifar(), tmp_path, base_url=server.url))
    assert len(server.ranges) == 2
    assert server.ranges[1] is not None


def test_an_answer_without_a_length_that_ends_early_is_continued(server, tmp_path):
    server.manners = ["no length"]
    check_folder(fetch(cifar(), tmp_path, base_url=server.url))
    assert server.ranges[1:] == ["bytes=100000-"]


def test_corrupted_bytes_are_refused_and_deleted(server, tmp_path):
    server.manners = ["corrupt"]
    message = refused(cifar(), tmp_path, server.url)
    bad = ARCHIVE[:5000] + bytes([ARCHIVE[5000] ^ 1]) + ARCHIVE[5001:]
    assert hashlib.sha256(ARCHIVE).hexdigest() in message
    assert hashlib.sha256(bad).hexdigest() in message
    assert "regrow data get cifar10" in message
    assert list((tmp_path / ".cifar10.download").iterdir()) == []
    check_folder(fetch(cifar(), tmp_path, base_url=server.url))  # the second try is sound
    assert server.ranges == [None, None]


def test_corruption_of_a_resumed_file_is_refused_too(server, tmp_path):
    part_of(tmp_path).parent.mkdir()
    part_of(tmp_path).write_bytes(b"x" * 5000)
    assert "does not match" in refused(cifar(), tmp_path, server.url)
    assert not part_of(tmp_path).exists()


def test_another_size_is_refused_before_it_is_read(server, tmp_path):
    server.always = "short"
    message = refused(cifar(), tmp_path, server.url)
    assert f"serves 1,000 bytes where {len(ARCHIVE):,} are expected" in message
    assert not part_of(tmp_path).exists()
    assert len(server.ranges) == 1


def test_http_errors_name_the_address_and_both_ways(server, tmp_path):
    server.always = "404"
    message = refused(cifar(), tmp_path, server.url)
    assert f"{server.url}/cifar-10-binary.tar.gz answered with HTTP status 404" in message
    assert f"regrow data get cifar10 --data-dir {tmp_path}" in message
    assert CIFAR10.remote[0].url in message
    assert "data_batch_1.bin" in message


def test_a_server_that_is_down(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        message = refused(cifar(), tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "Check the network" in message
    assert f"regrow data get cifar10 --data-dir {tmp_path}" in message
    assert str(tmp_path / "cifar-10-batches-bin") in message


def test_a_timeout_to_connect(tmp_path, monkeypatch):
    def late(*args, **kwargs):
        raise requests.ConnectTimeout("timed out")

    monkeypatch.setattr(requests, "get", late)
    assert "timed out" in refused(cifar(), tmp_path, "http://127.0.0.1")


def test_a_full_disk_is_noticed_before_the_first_byte(server, tmp_path, monkeypatch):
    free = len(ARCHIVE) + 400_000
    usage = type(download.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(10**9, 0, free - 1))
    assert "needs 1 MB" in refused(cifar(), tmp_path, server.url)
    assert server.ranges == []
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(10**9, 0, free))
    check_folder(fetch(cifar(), tmp_path, base_url=server.url))


def test_a_folder_of_that_name_with_other_content_is_left_alone(server, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(b"mine")
    with pytest.raises(RegrowError, match=r"exists, but it lacks data_batch_1\.bin"):
        fetch(cifar(), tmp_path, base_url=server.url)
    assert [path.name for path in folder.iterdir()] == ["test_batch.bin"]
    assert server.ranges == []


def test_a_data_directory_that_is_a_file(server, tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(RegrowError, match="cannot write CIFAR-10"):
        fetch(cifar(), tmp_path / "data", base_url=server.url)


def test_a_dangerous_archive_is_refused_whole(server, tmp_path):
    archive = tar_of({f"cifar-10-batches-bin/{name}": b"x" for name in FILES} | {"../evil": b"x"})
    server.content["cifar-10-binary.tar.gz"] = archive
    assert "'../evil' is outside" in refused(cifar(archive), tmp_path / "data", server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_archive_that_lacks_files_is_refused(server, tmp_path):
    archive = tar_of({"cifar-10-batches-bin/test_batch.bin": b"x"})
    server.content["cifar-10-binary.tar.gz"] = archive
    assert "lacks data_batch_1.bin" in refused(cifar(archive), tmp_path, server.url)


def fashion(server: Server) -> tuple[Source, dict[str, bytes]]:
    """Fashion-MNIST's row for four small files, which the server is given."""
    content = {file.name: file.name.encode() * 50 for file in FASHION_MNIST.remote}
    server.content = content
    remote = tuple(
        RemoteFile(f.url, hashlib.sha256(content[f.name]).hexdigest(), len(content[f.name]))
        for f in FASHION_MNIST.remote
    )
    return replace(FASHION_MNIST, remote=remote), content


def test_a_set_of_several_files_appears_at_once(server, tmp_path):
    source, content = fashion(server)
    server.manners = ["well", "well", "404"]
    refused(source, tmp_path, server.url)
    assert len(server.ranges) == 3
    folder = fetch(source, tmp_path, base_url=server.url)
    assert len(server.ranges) == 5  # the two that had arrived were not asked for again
    assert folder == tmp_path / "fashion-mnist"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert [path.name for path in tmp_path.iterdir()] == ["fashion-mnist"]
