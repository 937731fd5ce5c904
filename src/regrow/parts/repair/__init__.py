"""How the weights that stay make up for those that are cut."""

from regrow.core.protocols import Repair
from regrow.core.table import Row, Table
from regrow.parts.repair.surgeon import Surgeon

REPAIRS: Table[Repair] = Table("repair", Row("surgeon", Surgeon, "Singh and Alistarh 2020, sec. 4"))
