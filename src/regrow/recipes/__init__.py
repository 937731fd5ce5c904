"""One file per published strategy; each returns a Program."""

from regrow.core.table import Row, Table
from regrow.engine.program import Program
from regrow.recipes.bidirectional import bidirectional
from regrow.recipes.bidirectional_paper import bidirectional_paper
from regrow.recipes.bidirectional_units import bidirectional_units
from regrow.recipes.gradual import gradual
from regrow.recipes.hybrid import hybrid
from regrow.recipes.iterative import iterative
from regrow.recipes.manual import manual
from regrow.recipes.one_shot import one_shot
from regrow.recipes.woodfisher import woodfisher

RECIPES: Table[Program] = Table(
    "recipe",
    Row("bidirectional", bidirectional, "after arXiv 2511.11675 (2025)"),
    Row("bidirectional_paper", bidirectional_paper, "arXiv 2511.11675 (2025)"),
    Row("bidirectional_units", bidirectional_units, "arXiv 2511.11675 (2025)"),
    Row("one_shot", one_shot, "arXiv 2508.13836 (2025)"),
    Row("iterative", iterative, "arXiv 2508.13836 (2025)"),
    Row("hybrid", hybrid, "arXiv 2508.13836 (2025)"),
    Row("gradual", gradual, "Zhu and Gupta 2017, eq. 1"),
    Row("woodfisher", woodfisher, "Singh and Alistarh 2020"),
    Row("manual", manual, "arXiv 2508.13836 (2025)"),
)

__all__ = [
    "RECIPES",
    "bidirectional",
    "bidirectional_paper",
    "bidirectional_units",
    "gradual",
    "hybrid",
    "iterative",
    "manual",
    "one_shot",
    "woodfisher",
]
