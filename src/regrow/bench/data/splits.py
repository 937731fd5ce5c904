"""Training, validation and test parts as separate objects, and how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regrow.core.errors import RegrowError

SPLIT_SEED = 20_240_229
"""Every split is drawn with this seed, never with a run's: all runs see the same images."""

_SUBSET_SEED = 2009


@dataclass(frozen=True)
class TensorPair:
    """Inputs `(N, ...)`, images as `(N, C, H, W)`, with their labels, int64 `(N,)`."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.images, Tensor) or not isinstance(self.labels, Tensor):
            kinds = f"{type(self.images).__name__} and {type(self.labels).__name__}"
            raise RegrowError(f"images and labels must be tensors; got {kinds}.")
        if self.images.ndim < 2 or self.labels.shape != self.images.shape[:1]:
            raise RegrowError(
                f"images {tuple(self.images.shape)} and labels {tuple(self.labels.shape)} do not "
                "belong together: give inputs (N, ...) and labels (N,)."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> TensorPair:
        """The images at some positions."""
        return TensorPair(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Splits:
    """A data set for one experiment.

    Attributes:
        train: what is trained on.
        validation: what decisions are made on.
        test: what is measured once, at the end.
        mean: per channel, of pixels in [0, 1]; it has been subtracted from all images.
        std: per channel, of pixels in [0, 1]; all images have been divided by it.
    """

    train: TensorPair
    validation: TensorPair
    test: TensorPair
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def stratified(labels: Tensor, fractions: Sequence[float], seed: int) -> tuple[Tensor, ...]:
    """Disjoint parts that cover all positions, with the same mix of classes.

    Of each class with n members, part k gets floor(fraction_k n) or one more, the largest
    remainders first, ties to the earlier part.

    Args:
        labels: int64 `(N,)`.
        fractions: of each part; they sum to 1.
        seed: of the shuffle within the classes.

    Returns:
        ascending positions, int64, one tensor per part.

    Raises:
        RegrowError: the fractions do not sum to 1, or a part would be empty.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise RegrowError(f"the parts' fractions {tuple(fractions)} must be positive and sum to 1.")
    # RandomState's stream is frozen by NumPy: the split is the same with every version.
    random = np.random.RandomState(seed)
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    for label in np.unique(labels.numpy()):
        members = random.permutation(np.flatnonzero(labels.numpy() == label))
        exact = np.asarray(fractions) * len(members)
        counts = np.floor(exact).astype(int)
        largest = np.argsort(counts - exact, kind="stable")
        counts[largest[: len(members) - counts.sum()]] += 1
        for part, chosen in zip(parts, np.split(members, np.cumsum(counts)[:-1]), strict=True):
            part.append(chosen)
    positions = [np.sort(np.concatenate(part)) if part else np.empty(0, int) for part in parts]
    if any(len(part) == 0 for part in positions):
        raise RegrowError(
            f"{len(labels)} images are too few for parts of {tuple(fractions)} with every class: "
            f"they would have {[len(part) for part in positions]}. Use a larger set."
        )
    return tuple(torch.from_numpy(part) for part in positions)


def hold_out(
    pair: TensorPair, fraction: float = 0.1, seed: int = SPLIT_SEED
) -> tuple[TensorPair, TensorPair]:
    """A validation part taken out of the training part, stratified.

    Args:
        pair: the published training part.
        fraction: of it that goes to validation, in (0, 1).
        seed: of the draw.

    Returns:
        the rest, and the validation part.
    """
    rest, held = stratified(pair.labels, (1 - fraction, fraction), seed)
    return pair.take(rest), pair.take(held)


def some_of_each(pairs: Sequence[TensorPair], members: Sequence[int]) -> list[TensorPair]:
    """A few members of every class of each part, drawn without replacement, in their order.

    Args:
        pairs: parts of a data set.
        members: of a class, for each part.

    Raises:
        RegrowError: a class has fewer.
    """
    random, chosen = np.random.default_rng(_SUBSET_SEED), []
    for pair, count in zip(pairs, members, strict=True):
        positions = []
        for label in np.unique(pair.labels.numpy()):
            found = np.flatnonzero(pair.labels.numpy() == label)
            if len(found) < count:
                raise RegrowError(f"class {label} has {len(found)} members; {count} are needed.")
            positions.append(random.choice(found, count, replace=False))
        chosen.append(pair.take(torch.from_numpy(np.sort(np.concatenate(positions)))))
    return chosen


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images, in units of [0, 1].

    Args:
        images: uint8 `(N, C, H, W)`: the training part alone, so that nothing of the other
            parts leaks into training.

    Returns:
        mean and (population) standard deviation, each `C` numbers.

    Raises:
        RegrowError: the images are not uint8, or a channel is constant.
    """
    _check_bytes(images)
    total = torch.zeros(images.shape[1], dtype=torch.int64)
    squares = torch.zeros_like(total)
    for some in images.split(1024):  # bounds the memory; integer sums are exact
        values = some.to(torch.int64)
        total += values.sum(dim=(0, 2, 3))
        squares += values.square().sum(dim=(0, 2, 3))
    count = images.numel() // images.shape[1]
    mean = total.double() / count
    variance = squares.double() / count - mean.square()
    if (variance <= 1e-9).any():
        raise RegrowError("a channel of the training images is constant: is the data damaged?")
    return tuple((mean / 255).tolist()), tuple((variance.sqrt() / 255).tolist())


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(images / 255 - mean) / std`, per channel.

    Args:
        images: uint8 `(N, C, H, W)`.
        mean: `C` numbers, for pixels in [0, 1].
        std: `C` positive numbers, likewise.

    Returns:
        float32 `(N, C, H, W)`.

    Raises:
        RegrowError: the images are not uint8, or the constants are not one per channel.
    """
    _check_bytes(images)
    if not len(mean) == len(std) == images.shape[1] or min(std) <= 0:
        raise RegrowError(
            f"mean {tuple(mean)} and std {tuple(std)} must have one number for each of the "
            f"{images.shape[1]} channels, and std be positive."
        )
    shift, scale = (torch.tensor(x, device=images.device).view(1, -1, 1, 1) for x in (mean, std))
    return images.to(torch.float32).div_(255).sub_(shift).div_(scale)


def _check_bytes(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.numel() == 0:
        raise RegrowError(
            f"images must be uint8 (N, C, H, W), not {images.dtype} {tuple(images.shape)}."
        )
