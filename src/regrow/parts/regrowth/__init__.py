"""Which removed weights return, and with which value. Rules score as criteria do."""

from regrow.core.protocols import Criterion, Value
from regrow.core.table import Row, Table
from regrow.parts.regrowth.dense_magnitude import DenseMagnitude
from regrow.parts.regrowth.dense_saliency import DenseSaliency
from regrow.parts.regrowth.gain import Gain
from regrow.parts.regrowth.gradient import GradientMagnitude
from regrow.parts.regrowth.newton import Newton
from regrow.parts.regrowth.random import RandomRegrowth
from regrow.parts.regrowth.reference import Reference
from regrow.parts.regrowth.values import (
    FromReference,
    Initialiser,
    NewtonStep,
    Remembered,
    Saved,
    Zero,
)

RULES: Table[Criterion] = Table(
    "regrowth",
    Row("saliency", DenseSaliency, "arXiv 2511.11675 (2025)"),
    Row("magnitude", DenseMagnitude, "Han et al. 2015"),
    Row("gradient", GradientMagnitude, "Evci et al. 2020"),
    Row("reference", Reference, "arXiv 2511.11675 (2025)"),
    Row("gain", Gain, "Molchanov et al. 2019, signed"),
    Row("newton", Newton, "LeCun et al. 1990, eq. 4, for growth"),
    Row("random", RandomRegrowth, "Mocanu et al. 2018"),
)

VALUES: Table[Value] = Table(
    "value",
    Row("zero", Zero, "Evci et al. 2020"),
    Row("dense", Saved, "-"),
    Row("remembered", Remembered, "Lin et al. 2020"),
    Row("newton", NewtonStep, "LeCun et al. 1990, for growth"),
    Row("reference", FromReference, "arXiv 2511.11675 (2025)"),
    Row("init", Initialiser, "He et al. 2015, eq. 10"),
)
