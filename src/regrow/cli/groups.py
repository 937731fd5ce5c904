"""`regrow inspect --groups`: the coupled groups of a run's network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regrow.cli.runs import network_of_run, network_of_task, packed_file
from regrow.core.errors import RegrowError

if TYPE_CHECKING:
    from regrow.engine.groups import Groups


def groups_of(path: Path, task: str | None, model: str | None, data_dir: Path | None) -> Groups:
    """What can be removed from a network, traced on one sample of its task.

    Args:
        path: a run directory, or a packed file with `task`.

    Raises:
        RegrowError: there is no such network, or its data are not here.
    """
    from regrow.engine.shrink import find_groups

    if path.is_dir():
        network = network_of_run(path, packed_file(path, None), data_dir, shrunk=False)
    elif task is not None:
        network = network_of_task(task, model, path, data_dir)
    else:
        raise RegrowError(
            f"{path} holds no network's class; with --groups give a run directory, or the file's "
            "--task."
        )
    return find_groups(network.model, network.splits.validation.images[:1])
