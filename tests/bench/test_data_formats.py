"""Readers against files that the tests write in the standard layouts, good and damaged."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from regrow.bench.data.formats import read
from regrow.bench.data.sources import CIFAR10, CIFAR100, FASHION_MNIST, Source
from regrow.core.errors import RegrowError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write_cifar(source: Source, root: Path, per_file: int = 20, seed: int = 0) -> dict[str, bytes]:
    """A tiny set in the binary layout, labels cycling through the classes; the files' bytes."""
    folder = root / source.folders[0]
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    written = {}
    for name in source.train + source.test:
        labels = np.arange(per_file) % source.classes
        columns = [labels % 20, labels] if source is CIFAR100 else [labels]
        pixels = rng.integers(0, 256, (per_file, 3072))
        records = np.concatenate([np.stack(columns, 1), pixels], 1).astype(np.uint8)
        written[name] = records.tobytes()
        (folder / name).write_bytes(written[name])
    return written


def idx(values: np.ndarray) -> bytes:
    """The IDX encoding of a uint8 array."""
    header = np.array([0x0800 + values.ndim, *values.shape], ">u4").tobytes()
    return header + values.astype(np.uint8).tobytes()


def write_fashion(
    folder: Path, count: int = 40, gz: bool = False
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A tiny set in the IDX layout; images and labels of "train" and "test"."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    made = {}
    for split in ("train", "test"):
        images, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        made[split] = images, labels
        for name, values in zip(FASHION_MNIST.files(split), made[split], strict=True):
            content = idx(values)
            if gz:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / name).write_bytes(content)
    return made


@pytest.mark.parametrize(("source", "label_bytes"), [(CIFAR10, 1), (CIFAR100, 2)])
def test_cifar_records_are_read_byte_by_byte(source, label_bytes, tmp_path):
    written = write_cifar(source, tmp_path, per_file=7)
    for split in ("train", "test"):
        images, labels = read(source, tmp_path, split)
        content = b"".join(written[name] for name in source.files(split))
        width = label_bytes + 3072
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert images.shape == (len(content) // width, 3, 32, 32)
        for n in range(len(images)):
            record = content[n * width : (n + 1) * width]
            assert labels[n] == record[label_bytes - 1]
            for c, y, x in [(0, 0, 0), (1, 3, 31), (2, 31, 5)]:
                assert images[n, c, y, x] == record[label_bytes + c * 1024 + y * 32 + x]


def test_cifar100_uses_the_fine_label(tmp_path):
    write_cifar(CIFAR100, tmp_path, per_file=100)
    assert read(CIFAR100, tmp_path, "train")[1].tolist() == list(range(100))


@pytest.mark.parametrize("folder", ["fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("gz", [False, True])
def test_idx_pairs_are_read(folder, gz, tmp_path):
    made = write_fashion(tmp_path / folder, gz=gz)
    for split, (expected_images, expected_labels) in made.items():
        images, labels = read(FASHION_MNIST, tmp_path, split)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert np.array_equal(images[:, 0].numpy(), expected_images)
        assert np.array_equal(labels.numpy(), expected_labels)
        images[0] = 7  # writable, not a view of a read-only buffer


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: b[:-1], "61,459 bytes, not a positive multiple of 3,073"),
        (lambda b: b"", "0 bytes"),
        (lambda b: b[:3073] + b"\x0a" + b[3074:], "label 10 of image 1 is not below 10"),
    ],
)
def test_damaged_cifar_names_the_file_and_the_remedy(damage, says, tmp_path):
    written = write_cifar(CIFAR10, tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(damage(written["data_batch_3.bin"]))
    with pytest.raises(RegrowError) as caught:
        read(CIFAR10, tmp_path, "train")
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "regrow data get cifar10" in message
    read(CIFAR10, tmp_path, "test")  # its own file is sound


def test_cifar100_checks_the_coarse_label_too(tmp_path):
    written = write_cifar(CIFAR100, tmp_path)
    path = tmp_path / "cifar-100-binary" / "test.bin"
    path.write_bytes(b"\x14" + written["test.bin"][1:])
    with pytest.raises(RegrowError, match="label 20 of image 0 is not below 20"):
        read(CIFAR100, tmp_path, "test")


IMAGES, LABELS = np.zeros((4, 28, 28)), np.arange(4)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train-images-idx3-ubyte", idx(LABELS) + bytes(99), "magic number is 0x801, not 0x803"),
        ("train-images-idx3-ubyte", idx(np.zeros((4, 28, 27))), r"images are \(28, 27\)"),
        ("train-images-idx3-ubyte", idx(IMAGES)[:-5], "3,147 bytes.* says 4 entries"),
        ("train-images-idx3-ubyte", idx(IMAGES) + b"x", "3,153 bytes.* says 4 entries"),
        ("train-images-idx3-ubyte", b"abc", "3 bytes, less than a header"),
        ("train-images-idx3-ubyte", idx(np.zeros((0, 28, 28))), "says 0 entries"),
        ("train-labels-idx1-ubyte", idx(np.arange(3)), "3 labels for 40 images"),
        ("train-labels-idx1-ubyte", idx(np.full(40, 10)), "label 10 of image 0"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS), mtime=0)[:-9], "decompressed"),
        ("train-labels-idx1-ubyte.gz", b"not gzip", "decompressed"),
    ],
)
def test_damaged_idx_names_the_file(name, content, says, tmp_path):
    folder = tmp_path / "fashion-mnist"
    write_fashion(folder)
    (folder / name.removesuffix(".gz")).unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(RegrowError, match=says) as caught:
        read(FASHION_MNIST, tmp_path, "train")
    assert str(folder / name) in str(caught.value)


def test_missing_set_names_the_place_and_both_ways(tmp_path):
    with pytest.raises(RegrowError) as caught:
        read(CIFAR10, tmp_path / "my data", "train")
    message = str(caught.value)
    assert f"regrow data get cifar10 --data-dir '{tmp_path / 'my data'}'" in message
    assert str(tmp_path / "my data" / "cifar-10-batches-bin") in message
    assert "cifar-10-binary.tar.gz" in message
    assert "data_batch_5.bin" in message
    assert "pickle" not in message


@pytest.mark.parametrize("source", [CIFAR10, CIFAR100])
def test_pickles_alone_are_not_enough(source, tmp_path):
    (tmp_path / source.pickled).mkdir()
    with pytest.raises(RegrowError, match=f"{source.pickled} is the version for Python.*never"):
        read(source, tmp_path, "train")


def test_incomplete_folder_names_what_it_lacks(tmp_path):
    write_cifar(CIFAR10, tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(RegrowError, match=r"lacks data_batch_4\.bin\."):
        read(CIFAR10, tmp_path, "test")


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(RegrowError, match=r"unknown part of a data set 'tests'.*'test'"):
        read(CIFAR10, tmp_path, "tests")


def shared_loader() -> ModuleType:
    """The module that decodes the real images, or a skip where they are not there."""
    pytest.importorskip("PIL")
    if not (SHARED / "load.py").is_file():
        pytest.skip("no real CIFAR-10 beside this checkout")
    spec = importlib.util.spec_from_file_location("shared_data", SHARED / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_real_cifar10_in_its_binary_layout(tmp_path):
    real = shared_loader()
    real.export_cifar10(tmp_path, small=True)
    for split in ("train", "test"):
        images, labels = read(CIFAR10, tmp_path, split)
        expected_images, expected_labels = real.cifar10(split, small=True)
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected_images)
        assert np.array_equal(labels.numpy(), expected_labels)
