"""WoodFisher: second-order cuts, and survivors that make up for them."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import Unpack

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.parts.criteria.woodfisher import WoodFisher
from regrow.parts.repair.surgeon import Surgeon
from regrow.parts.schedule.cubic import Cubic
from regrow.parts.schedule.one_shot import OneShot
from regrow.recipes.common import Cut, plan


def woodfisher(
    sparsity: float = 0.97,
    epochs: int = 60,
    *,
    start: int = 0,
    end: int | None = None,
    every: int | str | None = None,
    initial: float = 0.05,
    gradients: int = 400,
    chunk: int | None = None,
    damping: float = 1e-5,
    memory_gib: float = 4.0,
    update: Literal["single", "joint", "none"] = "single",
    scale: float = 1.0,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Cut a trained network by the inverse empirical Fisher, and move what stays.

    Along a cubic ramp, or at once with `end=0`; then training goes on at the target. The Fisher is
    collected at every event, of the network as it is then.

    Args:
        sparsity: the fraction removed at the end.
        epochs: training in all.
        start, end: the ramp's window in epochs; by default it ends at three quarters. An end of 0
            is one cut at the start.
        every: the interval of events, in epochs (5 or "5ep"); by default an eighth of the window.
        initial: the fraction removed by the ramp's first cut, or the sparsity if that is less.
        gradients: N, how many batches of the data one Fisher reads, a gradient each; of fewer, all
            of them once. It replaces the number of batches that `attach` is given.
        chunk: entries of a block of the Fisher; None takes the most, a power of two up to 512,
            that fit `memory_gib`.
        damping: lambda. The update of weights whose block has more entries than there are
            gradients can be large when it is small.
        memory_gib: the most memory that collecting the Fisher may take.
        update: of the survivors: "single" sums the updates for one weight each, as published;
            "joint" is the minimiser for all that are cut; "none" leaves them.
        scale: alpha, times which the update is done.
        seed: of random parts.
        cut: see `Cut`; the criterion is "woodfisher" with the values above, unless another is
            given. The allocation "uniform" is the paper's cut of every layer alike.

    Source:
        Singh and Alistarh 2020, "WoodFisher: Efficient second-order approximation for neural
        network compression", sec. 4 and 5.

    Departures:
        Batch norms normalise by the batch while gradients are read, as in every gradual recipe
        here, where the paper's network is in evaluation mode (statistics="running"). Blocks are
        inverted by Cholesky factors of the whole sum, which is the recursion's result; where
        gradients are so large that the sum's rounding would hide the damping, it is raised to 2e-6
        of the block's largest diagonal entry. Eight
        intervals are the paper's for ResNet-50, scaled to the window.

    Raises:
        RegrowError: a value is out of its range, or units should be repaired.
    """
    if update not in ("single", "joint", "none"):
        raise RegrowError(f"update={update!r} is none of 'single', 'joint' and 'none'.")
    check_sparsity(initial, "initial sparsity")
    finish = max(start + 1, epochs * 3 // 4) if end is None else end
    schedule: Any = OneShot(sparsity)
    if (start, finish) != (0, 0):
        pace = max(1, (finish - start) // 8) if every is None else every
        first = min(initial, sparsity)
        schedule = Cubic(sparsity, Step.epochs(finish), Step.epochs(start), Step.of(pace), first)
    fisher = (gradients, chunk, damping, memory_gib)
    if cut.get("criterion") in (None, "woodfisher"):
        cut = {**cut, "criterion": WoodFisher(*fisher)}
    repair = None if update == "none" else Surgeon(update == "joint", scale, *fisher)
    made = plan(schedule, cut, repair=repair)
    return Program((Stage(made, Step.epochs(epochs)),), seed)
