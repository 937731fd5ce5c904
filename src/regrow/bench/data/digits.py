"""The 8 x 8 handwritten digits that come with scikit-learn: a task without a download."""

from __future__ import annotations

import torch

from regrow.bench.data.splits import SPLIT_SEED, Splits, TensorPair, stratified

FRACTIONS = (0.5, 0.1, 0.4)
"""Of training, validation and test.

The test part is large because it sets the resolution of a comparison: the standard error of an
accuracy p on n images is sqrt(p (1 - p) / n). At p = 0.97 that is 0.6 points with the 719 images
of 40 %, and 1.3 points with the 179 of 10 %.
"""


def load_digits() -> Splits:
    """The 1,797 digits in a fixed stratified split, 50 % / 10 % / 40 %.

    Returns:
        images float32 `(N, 1, 8, 8)` in [0, 1] (the stored 0 to 16, over 16), labels int64
        `(N,)`. The split is the same in every run.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998 (its test set).
    """
    from sklearn import datasets  # takes a second to import, and no other set needs it

    stored = datasets.load_digits()
    images = torch.from_numpy(stored.images).to(torch.float32).div_(16).unsqueeze(1)
    labels = torch.from_numpy(stored.target).to(torch.int64)
    every = TensorPair(images, labels)
    train, validation, test = stratified(labels, FRACTIONS, SPLIT_SEED)
    return Splits(every.take(train), every.take(validation), every.take(test))
