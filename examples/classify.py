"""Classify scikit-learn's digits with a packed network; no PyTorch is imported or needed.

    regrow pack runs/demo -o model.regrow
    python examples/classify.py model.regrow

Needs regrow-runtime, NumPy and, for the images, scikit-learn.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

import regrow_runtime

digits = load_digits()
images = (digits.images[:, None] / 16).astype(np.float32)  # (1797, 1, 8, 8), in [0, 1]
network = regrow_runtime.load(sys.argv[1])
right = network(images).argmax(1) == digits.target
assert "torch" not in sys.modules
print(f"{right.mean():.4f} of {len(right)} images are classified rightly")
