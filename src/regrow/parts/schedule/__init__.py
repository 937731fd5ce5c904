"""When, and how far."""

from regrow.core.protocols import Schedule, SignalSchedule
from regrow.core.table import Row, Table
from regrow.parts.schedule.constant import Constant
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.geometric import Geometric
from regrow.parts.schedule.hybrid import Hybrid
from regrow.parts.schedule.manual import Manual
from regrow.parts.schedule.one_shot import OneShot
from regrow.parts.schedule.outcome import Outcome
from regrow.parts.schedule.patience import Patience
from regrow.parts.schedule.rebound import Rebound
from regrow.parts.schedule.steady import Steady

SCHEDULES: Table[Schedule | SignalSchedule] = Table(
    "schedule",
    Row("one_shot", OneShot, "arXiv 2508.13836 (2025)"),
    Row("constant", Constant, "arXiv 2508.13836 (2025)"),
    Row("geometric", Geometric, "arXiv 2508.13836 (2025)"),
    Row("cubic", Cubic, "Zhu and Gupta 2017, eq. 1"),
    Row("hybrid", Hybrid, "arXiv 2508.13836 (2025)"),
    Row("manual", Manual, "arXiv 2508.13836 (2025)"),
    Row("rebound", Rebound, "arXiv 2511.11675 (2025)"),
    Row("steady", Steady, "Liu et al. 2021 (GraNet); Evci et al. 2020"),
    Row("outcome", Outcome, "arXiv 2512.12981 (2025)"),
    Row("patience", Patience, "arXiv 2508.13836 (2025)"),
)
