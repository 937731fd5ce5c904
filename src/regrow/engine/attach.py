"""The handle that follows a program through the user's own training loop."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.budget import kept_count
from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.core.maskset import MaskSet
from regrow.core.names import unwrap
from regrow.core.protocols import SignalSchedule, Update
from regrow.core.step import Step
from regrow.engine.event import scope
from regrow.engine.gather import (
    Source,
    check_copies,
    check_ranks,
    check_state,
    clone_state,
    remembered,
)
from regrow.engine.memory import put_away, recall
from regrow.engine.occasion import Occasion, Rehearse, check_rehearse
from regrow.engine.optimizer_state import check_owns, clear
from regrow.engine.perform import project
from regrow.engine.prepare import check_lasted, validate
from regrow.engine.program import Program
from regrow.engine.progress import Progress, capture, restore, start
from regrow.model.collect import LossFn, evaluation
from regrow.model.inventory import check_finite, weights_of


def attach(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    program: Program,
    *,
    loss_fn: LossFn | None = None,
    data: Iterable[Any] | None = None,
    batches: int | None = 64,
    evaluate: Callable[[nn.Module], float] | None = None,
    reference: Mapping[str, Tensor] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    resume: Mapping[str, Any] | None = None,
    rehearse: Rehearse | None = None,
) -> Pruning:
    """Start a program on a model; call it after the optimiser has been built.

    Weights stay ordinary parameters that hold true zeros: a hook after every optimiser step
    zeroes removed entries again, so state-dict keys, the model's class and the loop stay as they
    are and gradients stay dense. Events that are due at the start happen here.

    Args:
        model: the network, dense as yet; compiled or wrapped in DDP is fine.
        optimizer: updates the network's weights; any that keeps state of the weights' shapes.
        program: from a recipe or composed by hand.
        loss_fn: `loss_fn(model, batch)`, a scalar; needed by gradient and activation evidence.
        data: batches for it, usually the training loader.
        batches: how many of them one collection reads; None reads all.
        evaluate: `evaluate(model)`, the value of the signal that a patience schedule watches,
            measured right after each cut. Optional.
        reference: state dict of a less sparse network, for rules that ask for one.
        masks: keep masks to start from, for a network that has been pruned already, such as
            `load_masks` of its file; by default everything is kept.
        resume: the handle's `state_dict()` from a checkpoint; load the model's and optimiser's
            own first.
        rehearse: `rehearse(model)` fine-tunes the model briefly with the same optimiser and
            returns a score, the same on all ranks; needed where layer budgets are learned by
            trial. Weights, optimiser state and random streams are put back after it.

    Returns:
        the handle; call `epoch_end` after every epoch and `finalize` at the end.

    Raises:
        RegrowError: the program does not fit the model, evidence is asked for but `loss_fn`,
            `data` or `reference` is missing, `masks` or `resume` are of another model or program,
            or another handle holds the optimiser.
    """
    if optimizer in _HELD:
        raise RegrowError(
            "this optimiser is held by another pruning handle; call its finalize() or detach() "
            "first."
        )
    inner = unwrap(model)
    entries = validate(inner, program, has_reference=reference is not None)
    weights = weights_of(inner, entries)
    prunable = {entry.name for entry in scope(program.stages[0].plan, entries)}
    check_owns(optimizer, {n: w for n, w in weights.items() if n in prunable})
    source = Source(loss_fn, data, batches)
    source.check(program.needs)
    check_copies(program.needs, inner)
    check_rehearse(program.needs, rehearse)
    on = Occasion(inner, entries, weights, optimizer, source, rehearse)
    if resume is not None:
        at = restore(resume, program, inner, weights)
        return Pruning(program, on, evaluate, at)
    at = Progress(start(weights, masks, program))
    wanted = remembered(program.needs)
    if "dense" in wanted:
        at.states["dense"] = clone_state(inner)
    if reference is not None and "reference" in wanted:
        check_state(inner, reference, "reference")
        check_finite({entry.name: reference[entry.name] for entry in entries})
        at.states["reference"] = {n: t.detach().clone() for n, t in reference.items()}
    handle = Pruning(program, on, evaluate, at)
    try:
        handle._enter(0)
    except BaseException:
        handle.detach()
        raise
    return handle


# Optimisers whose hook is set: two handles on one would undo each other's masks.
_HELD: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()


class Pruning:
    """A program in progress; made by `attach`."""

    def __init__(
        self,
        program: Program,
        on: Occasion,
        evaluate: Callable[[nn.Module], float] | None,
        at: Progress,
    ) -> None:
        self.program = program
        self._on, self._evaluate, self._at = on, evaluate, at
        self._hooks: list[Any] = [
            on.optimizer.register_step_pre_hook(self._before_step),
            on.optimizer.register_step_post_hook(self._after_step),
        ]
        _HELD.add(on.optimizer)

    @property
    def masks(self) -> MaskSet:
        """The present keep masks by clean weight name."""
        return self._at.masks

    @property
    def events(self) -> list[dict[str, Any]]:
        """One plain dict per mask event, in order.

        Keys: epoch, step, kind, sparsity, kept, total, pruned, regrown, and the same counts for
        each layer.
        """
        return self._at.events

    @property
    def done(self) -> bool:
        """The program has ended; training may go on, the masks stay."""
        return self._at.done

    @property
    def stage(self) -> int:
        """Index of the present stage."""
        return self._at.stage

    @property
    def sparsity(self) -> float:
        """Fraction removed of all convolution and linear weights."""
        return 1 - sum(self.masks.kept.values()) / sum(self.masks.total.values())

    def epoch_end(self, **signals: float) -> None:
        """Tell the handle that an epoch of training has ended.

        Args:
            signals: measurements by name, such as `val_accuracy=0.93`; only signal-driven
                schedules read them.

        Raises:
            RegrowError: the schedule watches a signal that was not given, or removed weights have
                values again, since something else than the optimiser given to attach moves them.
        """
        self._check_live()
        self._retry()
        self._at.total["epoch"] += 1
        self._at.epoch += 1
        if self.done:
            return
        schedule = self.program.stages[self._at.stage].plan.schedule
        if isinstance(schedule, SignalSchedule):
            self._follow(schedule.update(self._at.signal, signals))
        else:
            self._advance(Step.epochs(self._at.epoch))

    def project(self, model: nn.Module) -> None:
        """Zero the removed entries of a copy of the network, such as an averaged (EMA) one.

        Raises:
            RegrowError: the model lacks a weight, or has it in another shape.
        """
        project(weights_of(model, self._on.entries), self.masks)

    def detach(self) -> None:
        """Let go of the optimiser; weights keep their zeros until the next step moves them."""
        for hook in self._hooks:
            hook.remove()
        _HELD.discard(self._on.optimizer)

    def finalize(self) -> None:
        """Project once more and let go of the optimiser.

        Raises:
            RegrowError: the program has not run to its end, so its sparsity was not reached; or
                removed weights have values again.
        """
        self._check_live()
        self._retry()
        if not self.done:
            passed = self._at.total
            raise RegrowError(
                f"the program is in stage {self._at.stage + 1} of {len(self.program.stages)} at "
                f"sparsity {self.sparsity:.4f}, not at its end ({self.program.sparsity:g}): it has "
                f"seen {passed['epoch']} calls of epoch_end and {passed['iteration']} "
                "optimiser steps. Train on, or call detach() to stop early."
            )
        project(self._on.weights, self.masks)
        self.detach()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs besides the model's and optimiser's own states.

        Tensors and plain data only, so that `torch.load(..., weights_only=True)` reads it.
        """
        return capture(self._at, self.program)

    def _check_live(self) -> None:
        live = weights_of(self._on.model, self._on.entries)
        for name, weight in live.items():
            moved = weight is not self._on.weights[name]
            if moved or bool(weight.detach()[self.masks.removed(name).to(weight.device)].any()):
                raise RegrowError(
                    f"{name}: removed entries have values again, or the model has a new tensor in "
                    "its place. Train with the optimiser that was given to attach and load weights "
                    "before it; for a new optimiser or new weights, attach anew with masks=."
                )

    def _retry(self) -> None:
        # An event that failed (memory, an interrupt in the user's loss) is still due.
        if self._at.due is not None:
            self._reach(*self._at.due)

    def _before_step(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._speed:
            return
        if any(given is not None for given in (*args[1:], kwargs.get("closure"))):
            raise RegrowError(
                "with a memory that learns, removed weights have values inside the optimiser's "
                "step, so a closure would see another network; call step() without one."
            )
        recall(self._on.weights, self._at.away)

    def _after_step(self, *_: Any) -> None:
        if self._speed:
            put_away(self._on.weights, self.masks, self._at.away, self._speed)
        project(self._on.weights, self.masks)
        if self._at.rehearsing:
            return
        self._retry()
        self._at.total["iteration"] += 1
        self._at.iteration += 1
        if not self.done:
            self._advance(Step.iterations(self._at.iteration))

    @property
    def _speed(self) -> float:
        """How fast remembered values are updated now."""
        return bool(self._at.away) * (self.program.stages[self._at.stage].plan.memory or 0.0)

    def _enter(self, stage: int) -> None:
        self._at.stage, self._at.epoch, self._at.iteration = stage, 0, 0
        plan = self.program.stages[stage].plan
        schedule = plan.schedule
        if isinstance(schedule, SignalSchedule):
            self._follow(schedule.start())
            return
        for now in (Step.epochs(0), Step.iterations(0)):
            self._reach(schedule.target(now), plan.exchange_at(now))

    def _advance(self, now: Step) -> None:
        stage = self.program.stages[self._at.stage]
        plan, length = stage.plan, stage.length
        if length is not None and now.unit == length.unit and now.value >= length.value:
            self._leave()
        elif not isinstance(plan.schedule, SignalSchedule):
            self._reach(plan.schedule.target(now), plan.exchange_at(now))
            if now == plan.schedule.last:
                self._forget()

    def _forget(self) -> None:
        """Let go of the memory once nothing competes any more."""
        following = self.program.stages[self._at.stage + 1 : self._at.stage + 2]
        if all(stage.plan.memory is None for stage in following):
            self._at.away = {}

    def _leave(self) -> None:
        stage = self.program.stages[self._at.stage]
        where = f"stage {self._at.stage + 1} of {len(self.program.stages)}"
        check_lasted(stage, where, self._at.epoch, self._at.iteration)
        later = self.program.stages[self._at.stage + 1 :]
        wanted = remembered(frozenset[Need]().union(*(each.plan.needs for each in later)))
        if stage.keep_reference and "reference" in wanted:
            self._at.states["reference"] = clone_state(self._on.model)
        self._at.states = {w: state for w, state in self._at.states.items() if w in wanted}
        self._at.signal, self._at.best = {}, None
        self._forget()
        if self._at.stage + 1 < len(self.program.stages):
            self._enter(self._at.stage + 1)
        else:
            self._at.done = True

    def _follow(self, update: Update) -> None:
        if update.remember:
            self._at.best = clone_state(self._on.model)
        if update.restore and self._at.best is not None:
            # The optimiser's moments belong to the weights that are given up, biases included.
            self._on.model.load_state_dict(self._at.best)
            clear(self._on.optimizer, self._on.model.parameters())
        self._at.signal = update.state
        if update.target is not None:
            self._reach(update.target)
            self._at.best = None
            schedule = self.program.stages[self._at.stage].plan.schedule
            if self._evaluate is not None and isinstance(schedule, SignalSchedule):
                with evaluation(self._on.model):
                    signal = {schedule.monitor: self._evaluate(self._on.model)}
                self._follow(schedule.after_cut(self._at.signal, signal))
        if update.done:
            self._leave()

    def _reach(self, density: float | None, exchange: float = 0.0) -> None:
        if density is None:
            return
        plan = self.program.stages[self._at.stage].plan
        total, kept = self._on.entries.total, sum(self.masks.kept.values())
        same = density == self._at.density or kept == kept_count(total, density)
        idle = kept == total or (not plan.competes and exchange <= 0)
        if not (same and idle):
            self._at.due = (density, exchange)
            self._on.reach(plan, self._at, density, self.program.seed, exchange)
            check_ranks(self.masks.checksum())
        self._at.density, self._at.due = density, None
