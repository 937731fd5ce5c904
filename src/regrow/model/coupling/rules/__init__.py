"""One rule for each operation: what it ties together. See `table.RULES`."""

from regrow.model.coupling.rules import linear, norm, shape, spatial
from regrow.model.coupling.rules.other import other
from regrow.model.coupling.rules.pointwise import pointwise
from regrow.model.coupling.rules.table import RULES

__all__ = ["RULES", "linear", "norm", "other", "pointwise", "shape", "spatial"]
