"""What is kept or removed together."""

from typing import Any

from regrow.core.table import Row, Table
from regrow.parts.patterns.block import Block
from regrow.parts.patterns.element import Element
from regrow.parts.patterns.nm import NofM
from regrow.parts.patterns.unit import Unit

# All follow the protocol of a pattern but `Unit`, which is for plans of units.
PATTERNS: Table[Any] = Table(
    "pattern",
    Row("element", Element, "Han et al. 2015"),
    Row("n_of_m", NofM, "Mishra et al. 2021"),
    Row("block", Block, "Narang et al. 2017"),
    Row("unit", Unit, "Fang et al. 2023"),
)
