"""One file per published strategy; each returns a Program."""

from regrow.core.table import Row, Table
from regrow.engine.program import Program
from regrow.recipes.bidirectional import bidirectional
from regrow.recipes.bidirectional_paper import bidirectional_paper
from regrow.recipes.bidirectional_units import bidirectional_units
from regrow.recipes.codeq import codeq
from regrow.recipes.cops import cops
from regrow.recipes.gradual import gradual
from regrow.recipes.granet import granet
from regrow.recipes.granet_st import granet_st
from regrow.recipes.grasp import grasp
from regrow.recipes.greg import greg1, greg2
from regrow.recipes.hybrid import hybrid
from regrow.recipes.iterative import iterative
from regrow.recipes.lookahead import lookahead
from regrow.recipes.manual import manual
from regrow.recipes.one_shot import one_shot
from regrow.recipes.rigl import rigl
from regrow.recipes.snip import snip
from regrow.recipes.sparse_evolution import sparse_evolution
from regrow.recipes.synflow import synflow
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
    Row("lookahead", lookahead, "Park et al. 2020"),
    Row("woodfisher", woodfisher, "Singh and Alistarh 2020"),
    Row("manual", manual, "arXiv 2508.13836 (2025)"),
    Row("greg1", greg1, "Wang et al. 2021, alg. 1"),
    Row("greg2", greg2, "Wang et al. 2021, alg. 2"),
    Row("granet", granet, "Liu et al. 2021 (GraNet)"),
    Row("granet_st", granet_st, "Liu et al. 2021 (GraNet)"),
    Row("rigl", rigl, "Evci et al. 2020, algorithm 1"),
    Row("set", sparse_evolution, "Mocanu et al. 2018, algorithm 1"),
    Row("snip", snip, "Lee et al. 2019, algorithm 1"),
    Row("grasp", grasp, "Wang et al. 2020, algorithm 1"),
    Row("synflow", synflow, "Tanaka et al. 2020, algorithm 1"),
    Row("cops", cops, "arXiv 2107.12673 (2021), reconstructed"),
    Row("codeq", codeq, "arXiv 2512.12981 (2025)"),
)

__all__ = [
    "RECIPES",
    "bidirectional",
    "bidirectional_paper",
    "bidirectional_units",
    "codeq",
    "cops",
    "gradual",
    "granet",
    "granet_st",
    "grasp",
    "greg1",
    "greg2",
    "hybrid",
    "iterative",
    "lookahead",
    "manual",
    "one_shot",
    "rigl",
    "snip",
    "sparse_evolution",
    "synflow",
    "woodfisher",
]
