"""All arms on the quarter-width VGG16: the screen in which variants are compared.

    REGROW_DATA=FOLDER python experiments/headline/vgg16_quarter.py --workers 2
    ... --only 'gradual_75@99.5' --seeds 0          # one cell
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
# Where fewer weights are left the arms differ; at 98 % some of them show that they hardly do.
AT_98 = ("one_way", "gradual_magnitude", "gradual_saliency_50", "newton_saliency", "paper")
SPEC = Spec(
    "vgg16-quarter",
    "vgg16_bn_quarter",
    20_000,
    SHORT,
    8,
    (Point(0.995, 0.99825), Point(0.98, 0.993, AT_98, main_seeds=3)),
)

if __name__ == "__main__":
    main(SPEC.table(), write_small, __doc__)
