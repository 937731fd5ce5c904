"""Augmentation against a loop over images, and its statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.bench.data.augment import random_crop, random_flip, shift
from regrow.core.errors import RegrowError

NUMPY_MODE = {"reflect": "reflect", "zero": "constant"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), padding=st.sampled_from(["reflect", "zero"]), floating=st.booleans())
def test_shift_equals_padding_and_slicing_each_image(data, padding, floating):
    b, c = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    h, w = data.draw(st.integers(2, 7)), data.draw(st.integers(2, 7))
    pad = data.draw(st.integers(0, min(h, w) - 1))
    steps = st.lists(st.integers(-pad, pad), min_size=b, max_size=b)
    down, right = torch.tensor(data.draw(steps)), torch.tensor(data.draw(steps))
    images = torch.arange(1, b * c * h * w + 1).view(b, c, h, w) % 251
    images = images.float() if floating else images.to(torch.uint8)
    out = shift(images, down, right, padding)
    assert out.dtype == images.dtype
    for n in range(b):
        padded = np.pad(
            images[n].numpy(), ((0, 0), (pad, pad), (pad, pad)), mode=NUMPY_MODE[padding]
        )
        top, left = pad + int(down[n]), pad + int(right[n])
        assert np.array_equal(out[n].numpy(), padded[:, top : top + h, left : left + w])


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_random_crop_reaches_every_window_uniformly(padding):
    image = torch.arange(1, 26).view(1, 1, 5, 5).float()
    out = random_crop(image.expand(4500, -1, -1, -1), 1, generator(), padding)
    windows = {}
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            window = shift(image, torch.tensor([dy]), torch.tensor([dx]), padding)
            windows[dy, dx] = int((out == window).all(dim=(1, 2, 3)).sum())
    assert sum(windows.values()) == 4500
    # 500 each; six standard deviations of a binomial count are 126.
    assert all(abs(count - 500) < 126 for count in windows.values())


def test_random_crop_by_nothing_changes_nothing():
    images = torch.rand(6, 3, 4, 4, generator=generator(1))
    assert torch.equal(random_crop(images, 0, generator()), images)


def test_random_flip_mirrors_half_of_the_images_whole():
    images = torch.rand(2000, 2, 3, 4, generator=generator(1))
    out = random_flip(images, generator())
    flipped = (out == images.flip(-1)).all(dim=(1, 2, 3))
    kept = (out == images).all(dim=(1, 2, 3))
    assert (flipped ^ kept).all()
    assert 865 < int(flipped.sum()) < 1135  # six standard deviations


@pytest.mark.parametrize(
    "augment", [lambda x, g: random_crop(x, 2, g), lambda x, g: random_flip(x, g)]
)
def test_only_the_generator_decides(augment):
    images = torch.rand(64, 3, 8, 8, generator=generator(1))
    before = images.clone()
    torch.manual_seed(0)
    first = augment(images, generator(5))
    torch.manual_seed(1)
    assert torch.equal(first, augment(images, generator(5)))
    assert not torch.equal(first, augment(images, generator(6)))
    assert torch.equal(images, before)
    advancing = generator(5)
    assert torch.equal(first, augment(images, advancing))
    assert not torch.equal(first, augment(images, advancing))


@pytest.mark.parametrize("pad", [-1, 4])
def test_a_pad_that_does_not_fit_is_refused(pad):
    with pytest.raises(RegrowError, match=rf"pad is {pad} for images \(2, 3, 8, 4\)"):
        random_crop(torch.zeros(2, 3, 8, 4), pad, generator())


def test_an_unknown_padding_is_refused():
    with pytest.raises(RegrowError, match=r"'zeros'\. Did you mean 'zero'"):
        random_crop(torch.zeros(2, 3, 8, 8), 1, generator(), "zeros")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_an_accelerator_augments_alike_and_without_waiting(padding):
    images = torch.rand(64, 3, 8, 8, generator=generator(1))

    def augment(batch):
        draws = generator(5)
        return random_flip(random_crop(batch, 2, draws, padding), draws)

    there = images.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = augment(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.is_cuda
    assert torch.equal(out.cpu(), augment(images))
