"""What is kept or removed together. Channel groups will stand here beside the others."""

from regrow.core.protocols import Pattern
from regrow.core.table import Row, Table
from regrow.parts.patterns.block import Block
from regrow.parts.patterns.element import Element
from regrow.parts.patterns.nm import NofM

PATTERNS: Table[Pattern] = Table(
    "pattern",
    Row("element", Element, "Han et al. 2015"),
    Row("n_of_m", NofM, "Mishra et al. 2021"),
    Row("block", Block, "Narang et al. 2017"),
)
