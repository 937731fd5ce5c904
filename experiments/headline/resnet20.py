"""All arms on the ResNet-20: does the order of the quarter-width VGG16 hold.

    REGROW_DATA=FOLDER python experiments/headline/resnet20.py --workers 2
    ... --only 'gradual_75@97' --seeds 0          # one cell
    ... --table                                   # the table alone, from the committed record

FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

from common import main
from page import write_small
from spec import Point, Spec
from vgg16_quarter import SHORT

SPEC = Spec(
    "resnet20",
    "resnet20",
    12_500,
    SHORT,
    8,
    (Point(0.97, 0.9895),),
)

if __name__ == "__main__":
    main(SPEC.table(), write_small, __doc__)
