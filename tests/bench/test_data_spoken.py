"""Spoken digits: features against their definition, the authors' split, damaged recordings."""

from __future__ import annotations

import importlib.util
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regrow.bench.data import load
from regrow.bench.data.spoken import (
    FOLDER,
    FRAMES,
    HOP,
    MELS,
    RATE,
    WINDOW,
    log_mel,
    mel_filters,
    read_wave,
)
from regrow.core.errors import RegrowError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write(path: Path, samples: np.ndarray, *, rate: int = RATE, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def tone(frequency: float, seconds: float = 0.9) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * RATE)) / RATE)


def recordings(root: Path, indices: range = range(2, 8), digits: range = range(10)) -> None:
    """Two speakers; each digit is a tone of its own with noise."""
    random = np.random.default_rng(0)
    for digit in digits:
        for speaker in ("ann", "bob"):
            for index in indices:
                sound = tone(300 + 300 * digit, 0.3 + 0.02 * index).numpy()
                sound = 2**14 * sound + 200 * random.standard_normal(len(sound))
                write(root / FOLDER / f"{digit}_{speaker}_{index}.wav", sound)


def test_features_by_their_definition() -> None:
    samples = torch.randn(3000, dtype=torch.float64).float() * 0.1
    padded = np.zeros((FRAMES - 1) * HOP + WINDOW)
    padded[: len(samples)] = samples.numpy()
    n = np.arange(WINDOW)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW)
    edges = np.linspace(mel(50), mel(RATE / 2), MELS + 2)
    expected = np.empty((MELS, FRAMES))
    for t in range(FRAMES):
        frame = padded[t * HOP : t * HOP + WINDOW] * window
        bins = np.arange(WINDOW // 2 + 1)
        waves = np.exp(-2j * np.pi * np.outer(bins, n) / WINDOW)
        power = np.abs(waves @ frame) ** 2 / WINDOW
        for m in range(MELS):
            low, middle, high = (700 * (10 ** (edges[m + i] / 2595) - 1) for i in range(3))
            hertz = bins * RATE / WINDOW
            up, down = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
            expected[m, t] = np.log(np.clip(np.minimum(up, down), 0, None) @ power + 1e-5)
    found = log_mel([samples])[0]
    assert found.shape == (MELS, FRAMES)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


@pytest.mark.parametrize("frequency", [200.0, 700.0, 1500.0, 3500.0])
def test_a_tone_is_heard_in_its_band(frequency: float) -> None:
    band = log_mel([tone(frequency)])[0].mean(1).argmax()
    edges = np.linspace(mel(50), mel(RATE / 2), MELS + 2)
    assert band == np.abs(edges[1:-1] - mel(frequency)).argmin()


def test_every_band_hears_something() -> None:
    filters = mel_filters()
    assert filters.shape == (MELS, WINDOW // 2 + 1)
    assert (filters.max(1).values > 0.5).all()
    assert (filters >= 0).all()


def test_many_recordings_are_as_each_alone() -> None:
    waves = [torch.randn(500 + 37 * i) * 0.1 for i in range(300)]  # more than a chunk
    together = log_mel(waves)
    for i in (0, 255, 256, 299):
        torch.testing.assert_close(together[i], log_mel([waves[i]])[0])


def test_the_authors_split_and_standard_features(tmp_path: Path) -> None:
    recordings(tmp_path)
    splits = load("spoken_digits", tmp_path)
    # Indices 2, 3 and 4 are for the test; 5, 6 and 7 for training and validation.
    assert len(splits.test) == 10 * 2 * 3
    assert len(splits.train) + len(splits.validation) == 10 * 2 * 3
    assert splits.validation.labels.tolist() == list(range(10))
    assert splits.train.images.shape[1:] == (MELS, FRAMES)
    assert torch.allclose(splits.train.images.mean((0, 2)), torch.zeros(MELS), atol=1e-4)
    assert torch.allclose(splits.train.images.std((0, 2)), torch.ones(MELS), atol=1e-3)
    assert splits.test.labels.bincount().tolist() == [6] * 10
    # Labels belong to their sounds: the bands of a digit's tone rise with the digit.
    loud = [splits.test.images[splits.test.labels == d].mean((0, 2)).argmax() for d in range(10)]
    assert loud == sorted(loud)
    assert len(set(map(int, loud))) == 10


def test_what_is_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"no spoken digits in .* `git clone https://"):
        load("spoken_digits", tmp_path)
    recordings(tmp_path, digits=range(4))
    with pytest.raises(RegrowError, match=r"digits \[0, 1, 2, 3\] only; the clone is not complete"):
        load("spoken_digits", tmp_path)
    path = tmp_path / "one.wav"
    write(path, np.zeros(100), rate=44_100)
    with pytest.raises(RegrowError, match="44100 Hz"):
        read_wave(path)
    write(path, np.zeros(100), channels=2)
    with pytest.raises(RegrowError, match="2 channel"):
        read_wave(path)
    write(path, np.zeros(0))
    with pytest.raises(RegrowError, match="0 bytes"):
        read_wave(path)
    path.write_bytes(b"no sound")
    with pytest.raises(RegrowError, match="cannot be read as a WAV file"):
        read_wave(path)
    with pytest.raises(RegrowError, match="cannot be read as a WAV file"):
        read_wave(tmp_path / "none.wav")


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    samples = np.array([-(2**15), -1, 0, 1, 2**15 - 1])
    write(tmp_path / "x.wav", samples)
    assert read_wave(tmp_path / "x.wav").tolist() == (samples / 2**15).tolist()


def shared() -> Any:
    pytest.importorskip("PIL")
    spec = importlib.util.spec_from_file_location("shared_load", SHARED / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not (SHARED / "load.py").exists(), reason="the data folder is not here")
def test_real_recordings_tell_their_digit(tmp_path: Path) -> None:
    """The nearest of the training recordings: far above the tenth that chance gives."""
    waves, digits, speakers = shared().spoken_digits("all")
    for number, (sound, digit, speaker) in enumerate(zip(waves, digits, speakers, strict=True)):
        if number % 50 < 15:  # of 50 recordings of a digit by a speaker, in order
            write(tmp_path / FOLDER / f"{digit}_speaker{speaker}_{number % 50}.wav", sound)
    splits = load("spoken_digits", tmp_path)
    assert len(splits.test) == 10 * 6 * 5
    assert len(splits.train) + len(splits.validation) == 10 * 6 * 10
    near = torch.cdist(splits.test.images.flatten(1), splits.train.images.flatten(1)).argmin(1)
    told = splits.train.labels[near]
    assert (told == splits.test.labels).float().mean() > 0.6


@pytest.mark.skipif(not (SHARED / "load.py").exists(), reason="the data folder is not here")
def test_the_small_cifar10_is_the_one_that_is_shared(tmp_path: Path) -> None:
    data = shared()
    data.export_cifar10(tmp_path / "small", small=True)
    found = load("cifar10_small", tmp_path / "small")
    images, _ = data.cifar10("test", small=True)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (found.mean, found.std))
    pixels = (found.test.images * std + mean) * 255
    expected = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(pixels, expected, atol=0.01, rtol=0)
    assert len(found.train) == 4500
