"""Pulls on weights during training, beside the loss."""

from regrow.core.protocols import Penalty
from regrow.core.table import Row, Table
from regrow.parts.penalty.growing import Growing

PENALTIES: Table[Penalty] = Table("penalty", Row("growing", Growing, "Wang et al. 2021, alg. 1"))
