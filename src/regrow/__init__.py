"""Prune PyTorch networks to the stump, then let the connections grow back that matter."""

from regrow import recipes
from regrow.core.errors import RegrowError
from regrow.core.maskset import MaskSet
from regrow.core.step import Step
from regrow.engine.attach import attach
from regrow.engine.choose import choose
from regrow.engine.cut import Shrunk, masked
from regrow.engine.groups import Groups
from regrow.engine.grow import grow
from regrow.engine.latency import LatencyTable, measure_latency
from regrow.engine.plan import Plan
from regrow.engine.prepare import prepare
from regrow.engine.program import Program, Stage
from regrow.engine.prune import prune
from regrow.engine.pruning import Pruning
from regrow.engine.recalibrate import recalibrate
from regrow.engine.regrowth import Regrowth
from regrow.engine.shrink import find_groups as groups
from regrow.engine.shrink import shrink
from regrow.export.packed import load, load_masks, save
from regrow.export.shrunk import load_shrunk, save_shrunk
from regrow.model.inspection import Inspection, inspect

__all__ = [
    "Groups",
    "Inspection",
    "LatencyTable",
    "MaskSet",
    "Plan",
    "Program",
    "Pruning",
    "RegrowError",
    "Regrowth",
    "Shrunk",
    "Stage",
    "Step",
    "attach",
    "choose",
    "groups",
    "grow",
    "inspect",
    "load",
    "load_masks",
    "load_shrunk",
    "masked",
    "measure_latency",
    "prepare",
    "prune",
    "recalibrate",
    "recipes",
    "save",
    "save_shrunk",
    "shrink",
]
