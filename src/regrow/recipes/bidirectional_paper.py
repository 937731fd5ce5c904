"""Bidirectional pruning-regrowth as it was published: cut much too far, then grow back once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from regrow.core.budget import check_sparsity
from regrow.core.errors import RegrowError
from regrow.core.step import Step
from regrow.engine.program import Program, Stage
from regrow.engine.regrowth import Regrowth, globs
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.regrowth import RULES, VALUES
from regrow.parts.schedule.geometric import Geometric
from regrow.parts.schedule.one_shot import OneShot
from regrow.recipes.common import Cut, interval, plan


def bidirectional_paper(
    sparsity: float = 0.97,
    overshoot: float = 0.99,
    epochs: Sequence[int] = (30, 30),
    *,
    cuts: int = 1,
    rounds: int = 1,
    regrow: Any = "saliency",
    value: Any = "zero",
    layers: Any = "global",
    candidates: Sequence[str] = ("*",),
    ssim_below: float | None = None,
    reference: float | None = None,
    seed: int = 0,
    **cut: Unpack[Cut],
) -> Program:
    """Cut to an extreme sparsity, train, regrow to the target, train: the published form.

    It loses to its own equal-budget control (docs/bidirectional.md); `bidirectional` is the form
    to use.

    From a dense network: prune to `overshoot` by LAMP over all layers, fine-tune, re-enable the
    K = (overshoot - sparsity) N removed weights that the regrowth rule ranks first, fine-tune.

    Args:
        sparsity: the fraction removed at the end.
        overshoot: the fraction removed before regrowth, above `sparsity`.
        epochs: fine-tuning after the cut, and after the regrowth; of all rounds together.
        cuts: 1 cuts once; more reach the overshoot geometrically within the first epochs.
        rounds: how often to cut and regrow; each round gets its share of the epochs.
        regrow, value, layers: which removed weights return, with which value, and how many in
            each layer.
        candidates, ssim_below: which layers may get weights back; see `Regrowth`.
        reference: for the reference rule or value: the sparsity of the less sparse network that
            is trained first, for as many epochs as a cut.
        seed: of random parts.
        cut: see `Cut`.

    Source:
        Liu and Sheng 2025, arXiv 2511.11675; details of rules and budgets from the authors' code.

    Departures:
        Global ranking of the saliency decides the layer budgets (the code base has a learned
        controller); every layer keeps at least `floor` weights; masked weights are true zeros
        whose optimiser state is reset.

    Raises:
        RegrowError: overshoot <= sparsity, or a length or count below 1.
    """
    check_sparsity(sparsity)
    check_sparsity(overshoot, "overshoot")
    if overshoot <= sparsity:
        raise RegrowError(
            f"overshoot={overshoot} must be above sparsity={sparsity}: the cut goes further than "
            "the target, and regrowth comes back to it."
        )
    if isinstance(epochs, int) or len(epochs) != 2 or rounds < 1 or min(epochs) < rounds:
        raise RegrowError(
            f"epochs={epochs} must be two numbers (after the cut, after regrowth), each at "
            f"least the number of rounds, {rounds}."
        )
    if cuts < 1:
        raise RegrowError(f"cuts={cuts} must be at least 1.")
    grow = Regrowth(
        RULES.build(regrow),
        VALUES.build(value),
        ALLOCATIONS.build(layers),
        globs(candidates),
        ssim_below,
    )
    stages = []
    if reference is not None:
        if not any(need.of == "reference" for need in grow.needs) or reference >= sparsity:
            raise RegrowError(
                f"reference={reference} must be below sparsity={sparsity} and serve regrow or "
                "value 'reference'; leave it out otherwise."
            )
        first = plan(OneShot(reference), cut)
        stages.append(Stage(first, Step.epochs(epochs[0]), keep_reference=True))
    downs, ups = _shares(epochs[0], rounds), _shares(epochs[1], rounds)
    for number, (down, up) in enumerate(zip(downs, ups, strict=True)):
        start = sparsity if number else reference or 0.0
        deep = (
            Geometric(overshoot, cuts, interval(down, cuts), initial=start)
            if cuts > 1
            else OneShot(overshoot)
        )
        stages.append(Stage(plan(deep, cut), Step.epochs(down)))
        stages.append(Stage(plan(OneShot(sparsity), cut, grow), Step.epochs(up)))
    return Program(tuple(stages), seed)


def _shares(epochs: int, rounds: int) -> list[int]:
    # What does not divide evenly goes to the last round, where it does most good.
    return [epochs // rounds] * (rounds - 1) + [epochs - epochs // rounds * (rounds - 1)]
