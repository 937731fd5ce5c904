"""Spoken digits as log-mel spectrograms, from the recordings that their authors publish."""

from __future__ import annotations

import re
import sys
import wave
from array import array
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from regrow.bench.data.splits import Splits, TensorPair, hold_out
from regrow.core.errors import RegrowError

FOLDER = "free-spoken-digit-dataset/recordings"
ADDRESS = "https://github.com/Jakobovski/free-spoken-digit-dataset"
RATE = 8000
FRAMES, HOP, WINDOW = 64, 96, 256  # 0.79 s; 1 % of the recordings are longer and are cut
MELS = 32
_NAME = re.compile(r"(\d)_(.+)_(\d+)\.wav")
_TEST = 5  # indices below it, the authors' own test part
_FLOOR = 1e-5  # of the power, far below speech
_CHUNK = 256  # recordings at a time, which bounds the memory


def load_spoken_digits(root: Path) -> Splits:
    """The Free Spoken Digit Dataset in its authors' split; 10 % of training for validation.

    Args:
        root: the data directory; it holds the authors' repository.

    Returns:
        log-mel features, float32 `(N, MELS, FRAMES)`, each mel band with the mean 0 and deviation
        1 that it has in the training part, and labels, int64 `(N,)`.

    Raises:
        RegrowError: the recordings are not there, or one of them is damaged.

    Source: Zohar Jackson and contributors, Free Spoken Digit Dataset (2016 on), CC BY-SA 4.0.
    """
    folder = root / FOLDER
    paths = sorted(path for path in folder.glob("*.wav") if _NAME.fullmatch(path.name))
    if not paths:
        raise RegrowError(
            f"no spoken digits in {root}: looked for {folder}/*.wav. Get them with "
            f"`git clone {ADDRESS}` in that directory."
        )
    parts: dict[str, tuple[list[Path], list[int]]] = {"train": ([], []), "test": ([], [])}
    for path in paths:
        found = _NAME.fullmatch(path.name)
        assert found is not None
        files, labels = parts["test" if int(found[3]) < _TEST else "train"]
        files.append(path)
        labels.append(int(found[1]))
    for name, (_, labels) in parts.items():
        if set(labels) != set(range(10)):
            raise RegrowError(
                f"the {name} part in {folder} has digits {sorted(set(labels))} only; the clone is "
                f"not complete. Remove it, and clone {ADDRESS} anew."
            )
    pairs = {
        name: TensorPair(log_mel([read_wave(path) for path in files]), torch.tensor(labels))
        for name, (files, labels) in parts.items()
    }
    train, validation = hold_out(pairs["train"])
    mean = train.images.mean((0, 2)).double()
    std = train.images.std((0, 2), correction=0).double()

    def standard(pair: TensorPair) -> TensorPair:
        images = (pair.images - mean.float().view(-1, 1)) / std.float().view(-1, 1)
        return TensorPair(images, pair.labels)

    train, validation, test = (standard(pair) for pair in (train, validation, pairs["test"]))
    return Splits(train, validation, test, tuple(mean.tolist()), tuple(std.tolist()))


def read_wave(path: Path) -> Tensor:
    """A recording's samples, float32 in [-1, 1).

    Raises:
        RegrowError: it is not a mono WAV file of 16 bits at `RATE`, or is empty.
    """
    try:
        with wave.open(str(path), "rb") as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise RegrowError(
            f"{path} cannot be read as a WAV file: {error or 'it ends too early'}."
        ) from error
    if kind != (1, 2, RATE) or len(content) < 2:
        raise RegrowError(
            f"{path} has {kind[0]} channel(s), {8 * kind[1]} bits, {kind[2]} Hz and {len(content)} "
            f"bytes; expected is sound in 1 channel, 16 bits, {RATE} Hz."
        )
    samples = array("h", content[: len(content) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return torch.tensor(samples, dtype=torch.float32) / 2**15


def log_mel(waves: Sequence[Tensor]) -> Tensor:
    """Logarithms of mel-band powers; silence follows what is shorter than `FRAMES`.

    Args:
        waves: N times samples, float32 `(T,)` in [-1, 1), of any length.

    Returns:
        natural logarithms, float32 `(N, MELS, FRAMES)`.
    """
    filters, window = mel_filters(), torch.hann_window(WINDOW)
    length = (FRAMES - 1) * HOP + WINDOW
    features = torch.empty(len(waves), MELS, FRAMES)
    for first in range(0, len(waves), _CHUNK):
        some = waves[first : first + _CHUNK]
        fitted = torch.zeros(len(some), length)
        for row, samples in zip(fitted, some, strict=True):
            row[: len(samples)] = samples[:length]
        power = torch.fft.rfft(fitted.unfold(1, WINDOW, HOP) * window).abs().square() / WINDOW
        features[first : first + _CHUNK] = (filters @ power.mT + _FLOOR).log()
    return features


def mel_filters() -> Tensor:
    """Triangles of height 1, even in mel from 50 Hz to half the rate, float32 (MELS, bins).

    Source: the mel scale 2595 log10(1 + f / 700), O'Shaughnessy 1987.
    """
    low, high = (2595 * torch.log10(1 + torch.tensor(f / 700)) for f in (50.0, RATE / 2))
    edges = 700 * (10 ** (torch.linspace(float(low), float(high), MELS + 2) / 2595) - 1)
    bins = torch.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)
