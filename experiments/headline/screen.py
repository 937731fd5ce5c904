"""One seed of many variants on the quarter-width VGG16: which are worth more of them.

    REGROW_DATA=FOLDER python experiments/headline/screen.py --workers 2
    ... --only 'gradual_75@99.5'                    # one cell
    ... --table                                   # the table alone, from the committed record

FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

from common import main
from page import write_small
from spec import Point, Spec
from vgg16_quarter import SHORT

ONCE = (
    "one_way",
    "iterative",
    "gradual_75",
    "gradual_magnitude",
    "gradual_saliency*",
    "gradual_distilled",
    "exchange",
    "frozen",
    "frozen_saliency",
    "damped",
    "gradient_saliency",
    "newton_saliency",
    "newton_shallow",
    "newton_early*",
    "newton_step",
    "paper",
    "paper_iterative",
)
SPEC = Spec(
    "screen",
    "vgg16_bn_quarter",
    20_000,
    SHORT,
    8,
    (Point(0.995, 0.99825, ONCE, seeds=1, main_seeds=1),),
)

if __name__ == "__main__":
    main(SPEC.table(), write_small, __doc__)
