"""Weights that a network uses in place of those that are trained."""

from regrow.core.protocols import Reparam
from regrow.core.table import Row, Table
from regrow.parts.reparam.dead_zone import DeadZone

REPARAMS: Table[Reparam] = Table("reparam", Row("dead_zone", DeadZone, "arXiv 2512.12981 (2025)"))
