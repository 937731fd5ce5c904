"""The arms that matter on the ResNet-20: does the order of the quarter-width VGG16 hold.

    REGROW_DATA=FOLDER python experiments/headline/resnet20.py --workers 2
    ... --only 'gradual_75@97' --seeds 0          # one cell
    ... --table                                   # the table alone, from the committed record

FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

from dataclasses import replace

from common import main
from page import write_small
from spec import Point, Spec
from vgg16_quarter import SHORT

# Sized for two cores: left out are the paper's values and layer budgets, which come out alike on
# the quarter-width VGG16, and variants of the search that lie within noise there.
STUDIED = (
    "one_way",
    "iterative",
    "gradual_75",
    "gradual_saliency_50",
    "gradual_batch",
    "gradual_distilled",
    "exchange",
    "small_dense",
    "no_regrowth",
    "newton_saliency",
    "newton_batch",
    "newton_ramp",
    "gain_batch",
    "frozen_batch",
    "newton_tenth",
    "newton_distilled",
    "newton_shallow",
    "paper",
    "paper_iterative",
    "rule_gradient",
    "rule_random",
    "magnitude_dense",
    "shallow",
)
SPEC = Spec(
    "resnet20",
    "resnet20",
    10_000,
    replace(SHORT, compile="on"),
    8,
    (Point(0.97, 0.9895, STUDIED),),
)

if __name__ == "__main__":
    main(SPEC.table(), write_small, __doc__)
