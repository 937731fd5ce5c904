"""Splits are disjoint, stratified and fixed; constants come from the training part alone."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.bench.data import CLASSES, Splits, TensorPair, data_directory, load
from regrow.bench.data.formats import read
from regrow.bench.data.sources import CIFAR10, CIFAR100, FASHION_MNIST
from regrow.bench.data.splits import (
    channel_statistics,
    hold_out,
    normalise,
    some_of_each,
    stratified,
)
from regrow.core.errors import RegrowError


def write_set(source, root, per_file=30, seed=0):
    """A tiny set in its standard layout, every class in every file."""
    rng = np.random.default_rng(seed)
    folder = root / source.folders[0]
    folder.mkdir(parents=True)
    per_file = max(per_file, 6 * source.classes)
    labels = (np.arange(per_file) % source.classes).astype(np.uint8)
    if source is FASHION_MNIST:
        for split in ("train", "test"):
            images, names = rng.integers(0, 256, (per_file, 28, 28)), source.files(split)
            for name, values in zip(names, (images, labels), strict=True):
                header = np.array([0x800 + values.ndim, *values.shape], ">u4").tobytes()
                (folder / name).write_bytes(header + values.astype(np.uint8).tobytes())
        return
    heads = [labels % 20, labels] if source is CIFAR100 else [labels]
    for name in source.train + source.test:
        pixels = rng.integers(0, 256, (per_file, 3072))
        records = np.concatenate([np.stack(heads, 1), pixels], 1).astype(np.uint8)
        (folder / name).write_bytes(records.tobytes())


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=1, max_size=6),
    cut=st.sampled_from([(0.9, 0.1), (0.5, 0.1, 0.4), (0.25, 0.25, 0.5), (1 / 3, 2 / 3)]),
    seed=st.integers(0, 5),
)
def test_stratified_parts_partition_each_class(counts, cut, seed):
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    try:
        parts = stratified(labels, cut, seed)
    except RegrowError:
        # Only where rounding down leaves some part without an image of any class.
        assert any(all(math.floor(f * n) == 0 for n in counts) for f in cut)
        return
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    for part, fraction in zip(parts, cut, strict=True):
        assert part.tolist() == sorted(part.tolist())
        for k, n in enumerate(counts):
            taken = int((labels[part] == k).sum())
            assert math.floor(fraction * n) <= taken <= math.floor(fraction * n + 1e-9) + 1
    assert all(torch.equal(a, b) for a, b in zip(parts, stratified(labels, cut, seed), strict=True))


def test_stratified_is_exact_where_it_can_be_and_depends_on_the_seed():
    labels = torch.arange(5000) % 10
    rest, held = stratified(labels, (0.9, 0.1), 0)
    assert labels[held].bincount().tolist() == [50] * 10
    assert labels[rest].bincount().tolist() == [450] * 10
    assert not torch.equal(held, stratified(labels, (0.9, 0.1), 1)[1])


def test_stratified_leaves_the_global_generators_alone():
    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    stratified(torch.arange(100) % 10, (0.5, 0.5), 0)
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("fractions", [(0.9, 0.2), (1.0, 0.0), (1.2, -0.2)])
def test_fractions_that_make_no_partition_are_refused(fractions):
    with pytest.raises(RegrowError, match="sum to 1"):
        stratified(torch.arange(10) % 2, fractions, 0)


def test_too_few_images_are_refused():
    with pytest.raises(RegrowError, match="8 images are too few"):
        hold_out(TensorPair(torch.zeros(8, 1, 2, 2), torch.arange(8) % 4))


def test_images_and_labels_must_match():
    with pytest.raises(RegrowError, match="do not belong together"):
        TensorPair(torch.zeros(3, 1, 2, 2), torch.zeros(4, dtype=torch.int64))


def test_some_of_each_class_in_their_order_and_without_repetition():
    labels = torch.tensor([2, 0, 1, 0, 2, 1, 0, 1, 2, 2, 0])
    pair = TensorPair(torch.arange(11.0).view(11, 1), labels)
    first, second = some_of_each((pair, pair), (3, 1))
    assert first.labels.bincount().tolist() == [3, 3, 3]
    assert second.labels.bincount().tolist() == [1, 1, 1]
    positions = first.images.flatten().long()
    assert positions.tolist() == sorted(set(positions.tolist()))
    assert torch.equal(labels[positions], first.labels)
    again, _ = some_of_each((pair, pair), (3, 1))
    assert torch.equal(again.images, first.images)
    with pytest.raises(RegrowError, match="class 1 has 3 members; 4 are needed"):
        some_of_each((pair,), (4,))


def test_channel_statistics_match_numpy():
    images = torch.randint(0, 256, (1500, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    images[:, 1] //= 3
    mean, std = channel_statistics(images.to(torch.uint8))
    scaled = images.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(scaled.std(axis=(0, 2, 3)), rel=1e-9)


def test_a_constant_channel_is_refused():
    with pytest.raises(RegrowError, match="constant"):
        channel_statistics(torch.full((4, 1, 2, 2), 200, dtype=torch.uint8))


def test_normalise_by_hand():
    images = torch.tensor([0, 255, 51, 102], dtype=torch.uint8).view(1, 2, 1, 2)
    out = normalise(images, (0.5, 0.2), (0.25, 0.1))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.flatten(), torch.tensor([-2.0, 2.0, 0.0, 2.0]))
    assert images.flatten().tolist() == [0, 255, 51, 102]


def test_normalise_refuses_what_it_would_broadcast_or_scale_twice():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(RegrowError, match="one number for each of the 3 channels"):
        normalise(images, (0.5,), (0.5,))
    with pytest.raises(RegrowError, match=r"uint8 .* not torch\.float32"):
        normalise(images.float(), (0.5,) * 3, (0.5,) * 3)


def test_digits():
    from sklearn.datasets import load_digits

    splits = load("digits")
    stored = load_digits()
    parts = splits.train, splits.validation, splits.test
    assert [len(part) for part in parts] == pytest.approx([898.5, 179.7, 718.8], abs=5)
    images = torch.cat([part.images for part in parts])
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    found = sorted(
        zip((images * 16).flatten(1).tolist(), torch.cat([p.labels for p in parts]), strict=True)
    )
    expected = sorted(zip(stored.data.tolist(), stored.target, strict=True))
    assert [row for row, _ in found] == [row for row, _ in expected]
    assert [int(label) for _, label in found] == [int(label) for _, label in expected]
    for part in parts:
        shares = part.labels.bincount(minlength=10) / len(part)
        assert shares.min() > 0.08
        assert shares.max() < 0.12


def test_digits_split_does_not_depend_on_the_runs_seed():
    torch.manual_seed(1)
    first = load("digits")
    torch.manual_seed(2)
    np.random.seed(2)
    second = load("digits")
    assert torch.equal(first.test.images, second.test.images)
    # Pinned: a changed split would silently change every recorded result.
    digest = hashlib.sha256(first.test.images.numpy().tobytes()).hexdigest()
    assert digest == "1f041e374b73d7f9b74d15dbcfacb36f4c443d80f7dc3b8c325e410596194251"
    assert [len(part) for part in (first.train, first.validation, first.test)] == [899, 179, 719]


@pytest.mark.parametrize("source", [CIFAR10, CIFAR100, FASHION_MNIST], ids=lambda s: s.name)
def test_load_normalises_by_the_training_part(source, tmp_path):
    write_set(source, tmp_path)
    splits = load(source.name, tmp_path)
    assert isinstance(splits, Splits)
    assert set(splits.train.labels.tolist()) == set(range(CLASSES[source.name]))
    for pair in (splits.train, splits.validation, splits.test):
        assert pair.images.dtype == torch.float32
    train = splits.train.images
    assert train.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert (train.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3
    images, labels = read(source, tmp_path, "test")
    assert torch.equal(splits.test.labels, labels)
    std, mean = (torch.tensor(x).view(1, -1, 1, 1) for x in (splits.std, splits.mean))
    torch.testing.assert_close((splits.test.images * std + mean) * 255, images.float())
    assert len(splits.train) + len(splits.validation) == len(read(source, tmp_path, "train")[1])
    # The same bytes give the same constants whatever is in the test part.
    for name in source.test[:1]:
        path = tmp_path / source.folders[0] / name
        path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert load(source.name, tmp_path).mean == splits.mean


def test_default_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGROW_DATA", raising=False)
    assert data_directory() == tmp_path / "data"
    monkeypatch.setenv("REGROW_DATA", str(tmp_path / "elsewhere"))
    assert data_directory() == tmp_path / "elsewhere"
    assert data_directory(tmp_path / "named") == tmp_path / "named"
    with pytest.raises(RegrowError, match=r"no CIFAR-10 in .*elsewhere.*regrow data get cifar10"):
        load("cifar10")


def test_unknown_set_names_the_nearest():
    with pytest.raises(RegrowError, match=r"'cifar11'\. Did you mean 'cifar10'"):
        load("cifar11")
