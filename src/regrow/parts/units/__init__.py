"""What a unit of a coupled group is worth: a channel or a head with all that belongs to it."""

from typing import Protocol

from torch import Tensor

from regrow.core.evidence import Evidence, Need
from regrow.core.groups import Group
from regrow.core.table import Row, Table
from regrow.parts.units.activation import Activation
from regrow.parts.units.bn_scale import BnScale
from regrow.parts.units.geometric_median import GeometricMedian
from regrow.parts.units.hessian import Hessian
from regrow.parts.units.norm import Norm
from regrow.parts.units.random import RandomUnits
from regrow.parts.units.taylor import UnitTaylor


class UnitCriterion(Protocol):
    """Importance of every unit: higher = keep."""

    @property
    def needs(self) -> frozenset[Need]: ...

    def score(self, groups: tuple[Group, ...], evidence: Evidence) -> dict[str, Tensor]:
        """Scores (units,) by the name of the group, finite, in float32 on the CPU."""
        ...


UNIT_CRITERIA: Table[UnitCriterion] = Table(
    "criterion of units",
    Row("norm", Norm, "Fang et al. 2023, eq. 4"),
    Row("bn_scale", BnScale, "Liu et al. 2017"),
    Row("taylor", UnitTaylor, "Molchanov et al. 2019, eq. 8"),
    Row("hessian", Hessian, "LeCun et al. 1990, eq. 4"),
    Row("geometric_median", GeometricMedian, "He et al. 2019, eq. 6"),
    Row("activation", Activation, "Molchanov et al. 2017"),
    Row("random", RandomUnits, "Blalock et al. 2020"),
)
