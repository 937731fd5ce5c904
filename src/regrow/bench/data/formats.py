"""Readers of image sets in their authors' file formats; nothing here unpickles."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regrow.bench.data.sources import Source
from regrow.core.errors import RegrowError

_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_CLASSES = {"cifar10": (10,), "cifar100": (20, 100)}  # one label byte per entry
_IDX_IMAGES, _IDX_LABELS = 0x0803, 0x0801  # unsigned bytes in three dimensions, in one
_IDX_SHAPE = (28, 28)


def read(source: Source, root: Path, split: str) -> tuple[Tensor, Tensor]:
    """One part of a data set from the data directory.

    Args:
        source: the data set.
        root: the data directory that holds one of `source.folders`.
        split: "train" or "test".

    Returns:
        images, uint8 `(N, C, H, W)`, and labels, int64 `(N,)`, in the order of the files. A set
        with fewer images than the published one is read as it is.

    Raises:
        RegrowError: the set is not there, or a file is not what its format says.
    """
    files = source.files(split)
    folder = source.locate(root)
    if folder is None:
        raise _missing(source, root)
    if source.name in _CIFAR_CLASSES:
        parts = [_cifar_batch(source, root, folder / name) for name in files]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return _idx_pair(source, root, folder, files)


def _cifar_batch(source: Source, root: Path, path: Path) -> tuple[Tensor, Tensor]:
    """One file of records: label bytes (coarse before fine), then red, green and blue planes."""
    classes = _CIFAR_CLASSES[source.name]
    width = len(classes) + int(np.prod(_CIFAR_SHAPE))
    content = np.frombuffer(_content(source, root, path), np.uint8)
    if len(content) == 0 or len(content) % width:
        raise _damaged(
            source,
            root,
            path,
            f"it has {len(content):,} bytes, not a positive multiple of {width:,} "
            f"(one image of the binary version)",
        )
    records = content.reshape(-1, width)
    for position, count in enumerate(classes):
        _check_labels(source, root, path, records[:, position], count)
    images = torch.from_numpy(records[:, len(classes) :].reshape(-1, *_CIFAR_SHAPE).copy())
    return images, torch.from_numpy(records[:, len(classes) - 1].astype(np.int64))


def _idx_pair(
    source: Source, root: Path, folder: Path, files: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Images and labels from a pair of IDX files, each as it is or gzipped."""
    raw, zipped = ([folder / f"{name}{end}" for name in files] for end in ("", ".gz"))
    paths = [plain if plain.is_file() else gz for plain, gz in zip(raw, zipped, strict=True)]
    images = _idx(source, root, paths[0], _IDX_IMAGES, _IDX_SHAPE)
    labels = _idx(source, root, paths[1], _IDX_LABELS, ())
    if len(images) != len(labels):
        raise _damaged(
            source, root, paths[1], f"it has {len(labels):,} labels for {len(images):,} images"
        )
    _check_labels(source, root, paths[1], labels, source.classes)
    return torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def _idx(source: Source, root: Path, path: Path, magic: int, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 array of one IDX file: magic number, one big-endian uint32 per dimension, bytes.

    Args:
        magic: 0x08 (unsigned bytes) then the number of dimensions.
        shape: every dimension but the first, as it must be.
    """
    content = _content(source, root, path)
    start = 4 * (2 + len(shape))
    if len(content) < start:
        raise _damaged(source, root, path, f"it has {len(content)} bytes, less than a header")
    found, count, *rest = (int(value) for value in np.frombuffer(content[:start], ">u4"))
    if found != magic:
        raise _damaged(source, root, path, f"its magic number is {found:#x}, not {magic:#x}")
    if tuple(rest) != shape:
        raise _damaged(source, root, path, f"its images are {tuple(rest)}, not {shape}")
    expected = start + count * int(np.prod(shape))
    if count == 0 or len(content) != expected:
        raise _damaged(
            source,
            root,
            path,
            f"it has {len(content):,} bytes, but its header says {count:,} entries "
            f"({expected:,} bytes)",
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(count, *shape)


def _content(source: Source, root: Path, path: Path) -> bytes:
    """The bytes of a file, decompressed where its name ends in .gz."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(source, root, path, f"it cannot be decompressed ({error})") from error
    except OSError as error:
        raise RegrowError(f"{path} cannot be read: {error}. Check its permissions.") from error


def _check_labels(
    source: Source,
    root: Path,
    path: Path,
    labels: np.ndarray,
    classes: int,
) -> None:
    if labels.max() >= classes:
        index = int((labels >= classes).argmax())
        raise _damaged(
            source,
            root,
            path,
            f"label {int(labels[index])} of image {index:,} is not below {classes}",
        )


def _damaged(source: Source, root: Path, path: Path, what: str) -> RegrowError:
    return RegrowError(
        f"{path} is not a file of {source.title}: {what}. "
        f"Move or delete the folder {path.parent} and get the set again. {source.how_to_get(root)}"
    )


def _missing(source: Source, root: Path) -> RegrowError:
    """Why `root` does not hold the set: no folder, an incomplete one, or only the pickles."""
    there = [folder for folder in source.folders if (root / folder).is_dir()]
    if there:
        lacks = ", ".join(source.lacks(root / there[0]))
        why = f"{root / there[0]} lacks {lacks}. Move or delete that folder first."
    else:
        why = f"looked for {' or '.join(str(root / folder) for folder in source.folders)}."
    if source.pickled and (root / source.pickled).is_dir():
        why += (
            f" {root / source.pickled} is the version for Python, which is made of pickles "
            "(loading one can run any code) and is never read: the binary version is needed."
        )
    return RegrowError(f"no {source.title} in {root}: {why} {source.how_to_get(root)}")
