"""What a weight is worth."""

from regrow.core.protocols import Criterion
from regrow.core.table import Row, Table
from regrow.parts.criteria.cops import Cops
from regrow.parts.criteria.fisher import Fisher
from regrow.parts.criteria.grasp import Grasp
from regrow.parts.criteria.lamp import Lamp
from regrow.parts.criteria.lookahead import Lookahead
from regrow.parts.criteria.magnitude import Magnitude
from regrow.parts.criteria.random import Random
from regrow.parts.criteria.saliency import Saliency
from regrow.parts.criteria.shuffled import Shuffled
from regrow.parts.criteria.synflow import SynFlow
from regrow.parts.criteria.taylor import Taylor
from regrow.parts.criteria.woodfisher import WoodFisher

CRITERIA: Table[Criterion] = Table(
    "criterion",
    Row("magnitude", Magnitude, "Han et al. 2015"),
    Row("lamp", Lamp, "Lee et al. 2021, eq. 2"),
    Row("lookahead", Lookahead, "Park et al. 2020"),
    Row("taylor", Taylor, "Molchanov et al. 2017, eq. 7"),
    Row("saliency", Saliency, "LeCun et al. 1990, eq. 4"),
    Row("fisher", Fisher, "arXiv 2508.13836 (2025)"),
    Row("grasp", Grasp, "Wang et al. 2020, eq. 8"),
    Row("synflow", SynFlow, "Tanaka et al. 2020, eq. 2"),
    Row("cops", Cops, "Wimmer et al. 2021, reconstructed"),
    Row("woodfisher", WoodFisher, "Singh and Alistarh 2020, sec. 4"),
    Row("random", Random, "Blalock et al. 2020"),
    Row("shuffled", Shuffled, "Su et al. 2020"),
)
