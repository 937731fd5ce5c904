"""Which units stay, once their number is known."""

from regrow.core.protocols import Selector
from regrow.core.table import Row, Table
from regrow.parts.select.top_k import TopK

SELECTORS: Table[Selector] = Table("selector", Row("top_k", TopK, "-"))
