"""The data of the standard tasks. Nothing is downloaded here: see `download.get`."""

from __future__ import annotations

import os
from pathlib import Path

from regrow.bench.data.digits import load_digits
from regrow.bench.data.formats import read
from regrow.bench.data.sources import SOURCES, source
from regrow.bench.data.splits import (
    Splits,
    TensorPair,
    channel_statistics,
    hold_out,
    normalise,
    some_of_each,
)
from regrow.bench.data.spoken import load_spoken_digits
from regrow.core.errors import unknown

CLASSES = {
    "digits": 10,
    **{name: row.classes for name, row in SOURCES.items()},
    "cifar10_small": 10,
    "spoken_digits": 10,
}
"""The data sets that `load` knows, with their number of classes."""

__all__ = ["CLASSES", "Splits", "TensorPair", "data_directory", "load"]


def data_directory(data_dir: Path | str | None = None) -> Path:
    """Where data sets lie: the argument, else $REGROW_DATA, else ./data; absolute."""
    return Path(data_dir or os.environ.get("REGROW_DATA") or "data").expanduser().absolute()


def load(name: str, data_dir: Path | str | None = None) -> Splits:
    """A data set, ready for training.

    Args:
        name: a name of `CLASSES`.
        data_dir: see `data_directory`; "digits" needs none.

    Returns:
        float32 images `(N, C, H, W)`, of "spoken_digits" log-mel features `(N, 32, 64)`. "digits"
        are in [0, 1]; the others are normalised per channel by the mean and standard deviation
        of their training part. Their validation part is 10 % of the published training part,
        stratified, the same in every run. "cifar10_small" is 500 training and 200 test images
        of each class of CIFAR-10.

    Raises:
        RegrowError: the name is unknown, or the files are absent or damaged; the message names
            the directory and the ways to get them.
    """
    if name not in CLASSES:
        raise unknown("data set", name, CLASSES)
    if name == "digits":
        return load_digits()
    root = data_directory(data_dir)
    if name == "spoken_digits":
        return load_spoken_digits(root)
    small = name == "cifar10_small"
    row = source("cifar10" if small else name)
    published, test = (TensorPair(*read(row, root, part)) for part in ("train", "test"))
    if small:
        published, test = some_of_each((published, test), (500, 200))
    train, validation = hold_out(published)
    mean, std = channel_statistics(train.images)
    train, validation, test = (
        TensorPair(normalise(pair.images, mean, std), pair.labels)
        for pair in (train, validation, test)
    )
    return Splits(train, validation, test, mean, std)
