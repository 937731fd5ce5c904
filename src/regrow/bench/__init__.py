"""Tasks, fair runs, statistics and reports: the command line's engine room."""

from regrow.bench.data import Splits, TensorPair
from regrow.bench.tasks import Task, Training, gathered

__all__ = ["Splits", "Task", "TensorPair", "Training", "gathered"]
