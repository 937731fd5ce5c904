"""All arms on the quarter-width VGG16: the screen in which variants are compared.

    REGROW_DATA=FOLDER python experiments/headline/vgg16_quarter.py --workers 2
    ... --only 'gradual_75@98' --seeds 0          # one cell
    ... --table                                   # the table alone, from the committed record

FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

from common import main
from page import write_small
from spec import Point, Spec

from regrow.bench.tasks import Training

SHORT = Training(
    dense_epochs=12,
    batch_size=64,
    lr=0.1,
    fine_tune_lr=0.05,
    label_smoothing=0.1,
    evidence_batches=16,
    threads=1,
)
# At the higher sparsity the main arms and the search.
EXTREME = (
    "one_way",
    "iterative",
    "gradual_75",
    "gradual_magnitude",
    "gradual_distilled",
    "exchange",
    "frozen",
    "damped",
    "frozen_shallow",
    "*_saliency*",
    "newton*",
    "gain*",
    "decompression",
    "paper*",
)
SPEC = Spec(
    "vgg16-quarter",
    "vgg16_bn_quarter",
    20_000,
    SHORT,
    8,
    (Point(0.98, 0.993), Point(0.995, 0.99825, EXTREME)),
)

if __name__ == "__main__":
    main(SPEC.table(), write_small, __doc__)
