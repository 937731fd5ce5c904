"""The data sets that can be downloaded: where from, how large, with which checksum."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from regrow.core.errors import unknown


@dataclass(frozen=True)
class RemoteFile:
    """One file on a server.

    Attributes:
        url: where its authors publish it.
        sha256: checksum of the file as served, in hexadecimal.
        size: bytes of the file as served.
    """

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """One data set in its standard layout.

    Attributes:
        name: what the command line calls it.
        title: what its authors call it.
        remote: the files to download.
        archive: whether they are gzipped tar files that hold `folders[0]`; otherwise they are
            the data files themselves.
        unpacked: bytes of the unpacked archive; 0 where there is none.
        folders: folders below the data directory in which the set is recognised; a download
            makes the first.
        train: names of the files of the training part, in order.
        test: names of the files of the test part, in order.
        gzipped: whether each file may also be there as NAME.gz.
        pickled: folder of the set's version as Python pickles, which is never read.
        classes: number of classes.
        citation: the publication.
    """

    name: str
    title: str
    remote: tuple[RemoteFile, ...]
    archive: bool
    unpacked: int
    folders: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    gzipped: bool
    pickled: str | None
    classes: int
    citation: str

    def files(self, split: str) -> tuple[str, ...]:
        """Names of the files of "train" or "test"."""
        parts = {"train": self.train, "test": self.test}
        if split not in parts:
            raise unknown("part of a data set", split, parts)
        return parts[split]

    def lacks(self, folder: Path) -> tuple[str, ...]:
        """Names of the files of the set that are not in `folder`, in order."""
        endings = ("", ".gz") if self.gzipped else ("",)
        return tuple(
            name
            for name in self.train + self.test
            if not any((folder / f"{name}{ending}").is_file() for ending in endings)
        )

    def locate(self, root: Path) -> Path | None:
        """The first folder below `root` that holds every file of the set, if there is one."""
        folders = (root / folder for folder in self.folders)
        return next((folder for folder in folders if not self.lacks(folder)), None)

    def how_to_get(self, root: Path) -> str:
        """One or two sentences with both ways to get the set into the data directory `root`."""
        command = f"regrow data get {self.name} --data-dir {shlex.quote(str(root))}"
        urls = " ".join(file.url for file in self.remote)
        folder = root / self.folders[0]
        if self.archive:
            by_hand = f"unpack {urls} in {root}, which makes {folder} with"
        else:
            by_hand = f"put {urls} into {folder}: it needs"
        files = ", ".join(self.train + self.test) + (" (or .gz)" if self.gzipped else "")
        return f"Get it with `{command}`; or, by hand, {by_hand} {files}."


_KRIZHEVSKY = (
    "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, "
    "technical report, University of Toronto, 2009"
)
_TORONTO = "https://www.cs.toronto.edu/~kriz"
# This host serves no https; the checksums below make that safe.
_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

CIFAR10 = Source(
    name="cifar10",
    title="CIFAR-10",
    remote=(
        RemoteFile(
            f"{_TORONTO}/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
        ),
    ),
    archive=True,
    unpacked=60_000 * 3_073,
    folders=("cifar-10-batches-bin",),
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    gzipped=False,
    pickled="cifar-10-batches-py",
    classes=10,
    citation=_KRIZHEVSKY,
)

CIFAR100 = Source(
    name="cifar100",
    title="CIFAR-100",
    remote=(
        RemoteFile(
            f"{_TORONTO}/cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            168_513_733,
        ),
    ),
    archive=True,
    unpacked=60_000 * 3_074,
    folders=("cifar-100-binary",),
    train=("train.bin",),
    test=("test.bin",),
    gzipped=False,
    pickled="cifar-100-python",
    classes=100,
    citation=_KRIZHEVSKY,
)

FASHION_MNIST = Source(
    name="fashion_mnist",
    title="Fashion-MNIST",
    remote=(
        RemoteFile(
            f"{_ZALANDO}/train-images-idx3-ubyte.gz",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            26_421_880,
        ),
        RemoteFile(
            f"{_ZALANDO}/train-labels-idx1-ubyte.gz",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            29_515,
        ),
        RemoteFile(
            f"{_ZALANDO}/t10k-images-idx3-ubyte.gz",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            4_422_102,
        ),
        RemoteFile(
            f"{_ZALANDO}/t10k-labels-idx1-ubyte.gz",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            5_148,
        ),
    ),
    archive=False,
    unpacked=0,
    folders=("fashion-mnist", "FashionMNIST/raw"),
    train=("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    test=("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    gzipped=True,
    pickled=None,
    classes=10,
    citation=(
        "H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking "
        "Machine Learning Algorithms, arXiv:1708.07747, 2017"
    ),
)

SOURCES = {source.name: source for source in (CIFAR10, CIFAR100, FASHION_MNIST)}


def source(name: str) -> Source:
    """The row of a name; a miss raises RegrowError with the nearest name."""
    if name not in SOURCES:
        raise unknown("data set on disk", name, SOURCES)
    return SOURCES[name]
