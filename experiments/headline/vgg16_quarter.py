"""The arms on the quarter-width VGG16, with several seeds: which variant is best.

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
# What screen.py left, and the paper's form with each of its choices exchanged.
STUDIED = (
    "one_way",
    "one_way_restart",
    "iterative",
    "gradual_75",
    "gradual_magnitude",
    "gradual_saliency_50",
    "gradual_batch",
    "gradual_distilled",
    "exchange",
    "small_dense",
    "no_regrowth",
    "frozen",
    "newton_saliency",
    "newton_ramp",
    "newton_distilled",
    "newton_shallow",
    "newton_early",
    "paper*",
    "rule_*",
    "value_*",
    "magnitude_dense",
    "faster",
    "two_rounds",
    "shallow",
    "layers_*",
)
# Where more weights are left the arms hardly differ; a few show it.
AT_98 = ("one_way", "gradual_saliency_50", "newton_saliency")
SPEC = Spec(
    "vgg16-quarter",
    "vgg16_bn_quarter",
    15_000,
    SHORT,
    8,
    (Point(0.995, 0.99825, STUDIED), Point(0.98, 0.993, AT_98, main_seeds=3)),
)

if __name__ == "__main__":
    main(SPEC.table(), write_small, __doc__)
