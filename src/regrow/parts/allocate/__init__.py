"""How much each layer keeps, or gets back."""

from regrow.core.protocols import Allocation
from regrow.core.table import Row, Table
from regrow.parts.allocate.erk import ErdosRenyiKernel
from regrow.parts.allocate.explicit import Explicit
from regrow.parts.allocate.global_ import Global
from regrow.parts.allocate.learned import Learned
from regrow.parts.allocate.ssim import SsimFill, SsimProportional
from regrow.parts.allocate.uniform import Uniform
from regrow.parts.allocate.uniform_plus import UniformPlus

ALLOCATIONS: Table[Allocation] = Table(
    "allocation",
    Row("global", Global, "Han et al. 2015"),
    Row("uniform", Uniform, "Zhu and Gupta 2017"),
    Row("uniform_plus", UniformPlus, "Gale et al. 2019, section 3"),
    Row("erk", ErdosRenyiKernel, "Evci et al. 2020, section 3"),
    Row("explicit", Explicit, "-"),
    Row("ssim_fill", SsimFill, "arXiv 2511.11675 (2025)"),
    Row("ssim_proportional", SsimProportional, "arXiv 2511.11675 (2025)"),
    Row("learned", Learned, "arXiv 2511.11675 (2025)"),
)
