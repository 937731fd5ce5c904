"""Main arms on the quarter-width VGG16 with three times the epochs: does the order survive?

    REGROW_DATA=FOLDER python experiments/headline/vgg16_quarter_long.py --workers 2

FOLDER holds cifar-10-batches-bin (`regrow data get cifar10`).
"""

from __future__ import annotations

from dataclasses import replace

from common import main
from page import write_small
from screen import SPEC as SCREEN
from spec import Point

ARMS = ("one_way", "gradual_saliency_50", "newton_saliency", "newton_early", "paper")
SPEC = replace(SCREEN, name="vgg16-quarter-long", epochs=24, points=(Point(0.995, 0.99825, ARMS),))

if __name__ == "__main__":
    main(SPEC.table(), write_small, __doc__)
