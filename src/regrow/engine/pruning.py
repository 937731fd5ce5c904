"""The handle that follows a program through the user's own training loop."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.evidence import Need
from regrow.core.maskset import MaskSet
from regrow.core.protocols import SignalSchedule, Update
from regrow.core.step import Step
from regrow.engine.gather import check_ranks, clone_state, remembered
from regrow.engine.groups import Groups
from regrow.engine.occasion import Occasion
from regrow.engine.optimizer_state import clear
from regrow.engine.perform import project
from regrow.engine.plan import Plan
from regrow.engine.prepare import check_lasted
from regrow.engine.program import Program
from regrow.engine.progress import Progress, capture
from regrow.engine.pull import pull
from regrow.engine.stepping import Outermost, after_step, before_step
from regrow.engine.targets import is_ahead, is_settled
from regrow.engine.unit_plan import UnitPlan
from regrow.model.collect import evaluation
from regrow.model.inventory import weights_of

# Optimisers whose hook is set: two handles on one would undo each other's masks.
HELD: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()


class Pruning:
    """A program in progress; made by `attach`, which begins it."""

    def __init__(
        self,
        program: Program,
        on: Occasion,
        evaluate: Callable[[nn.Module], float] | None,
        at: Progress,
    ) -> None:
        self.program = program
        self._on, self._evaluate, self._at = on, evaluate, at
        self._steps = Outermost()
        self._hooks: list[Any] = [
            on.optimizer.register_step_pre_hook(self._before_step),
            on.optimizer.register_step_post_hook(self._after_step),
        ]
        HELD.add(on.optimizer)

    @property
    def masks(self) -> MaskSet:
        """The present keep masks of the convolution and linear weights by clean name."""
        if self._on.groups is None:
            return self._masks
        return self._at.masks.only(entry.name for entry in self._on.entries)

    @property
    def _masks(self) -> MaskSet:
        # With a reparametrisation weights come and go at every step, and masks are taken down at
        # the end of an epoch only.
        latent = self._at.latent
        return self._at.masks if latent is None else self._at.masks.replaced(latent.alive())

    @property
    def groups(self) -> Groups | None:
        """What a program of units cuts; None of other programs."""
        return self._on.groups

    @property
    def units(self) -> dict[str, Tensor]:
        """Which units live, by group: for `regrow.shrink`.

        Raises:
            RegrowError: the program does not cut units.
        """
        if self._on.groups is None:
            raise RegrowError(
                "this program cuts weights one by one; units are of recipes with pattern='unit'."
            )
        return self._on.groups.units(self._at.masks)

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
        kept = self._masks.kept
        return 1 - sum(kept[e.name] for e in self._on.entries) / self._on.entries.total

    @property
    def explored(self) -> float:
        """Fraction of all convolution and linear weights that have lived since training began.

        Which masks a program starts from counts; what they removed before the first step does not.

        Source: Liu et al. 2021, "Do we actually need dense over-parameterization? In-time
        over-parameterization in sparse training".
        """
        lived = self._at.explored.kept
        return sum(lived[e.name] for e in self._on.entries) / self._on.entries.total

    def epoch_end(self, **signals: float) -> None:
        """Tell the handle that an epoch of training has ended.

        Args:
            signals: measurements by name, such as `val_accuracy=0.93`; only signal-driven
                schedules read them.

        Raises:
            RegrowError: the schedule watches a signal that was not given, or removed weights have
                values again, since something else than the optimiser given to attach moves them.
        """
        if not self._hooks:
            return
        self._on.check_live(self._masks)
        self._retry()
        self._at.total["epoch"] += 1
        self._at.epoch += 1
        if self.done:
            return
        schedule = self.program.stages[self._at.stage].plan.schedule
        if isinstance(schedule, SignalSchedule):
            self._follow(schedule.update(self._at.signal, signals))
        else:
            self._on.take_down(self._at)
            self._advance(Step.epochs(self._at.epoch))

    def project(self, model: nn.Module) -> None:
        """Zero the removed entries of a copy of the network, such as an averaged (EMA) one.

        Raises:
            RegrowError: the model lacks a weight, or has it in another shape.
        """
        project(weights_of(model, self._on.masked), self._at.masks)

    def detach(self) -> None:
        """Let go of the optimiser; weights keep their zeros until the next step moves them.

        The program ends here: `epoch_end` does nothing more.
        """
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        HELD.discard(self._on.optimizer)

    def finalize(self) -> None:
        """Project once more and let go of the optimiser.

        Raises:
            RegrowError: the program has not run to its end, so its sparsity was not reached; or
                removed weights have values again.
        """
        self._on.check_live(self._masks)
        self._retry()
        if not self.done:
            passed = self._at.total
            raise RegrowError(
                f"the program is in stage {self._at.stage + 1} of {len(self.program.stages)} at "
                f"sparsity {self.sparsity:.4f}, not at its end: it has seen {passed['epoch']} "
                f"calls of epoch_end and {passed['iteration']} optimiser steps. Train on, or call "
                "detach() to stop early."
            )
        project(self._on.weights, self._at.masks)
        self.detach()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs besides the model's and optimiser's own states.

        Tensors and plain data only, so that `torch.load(..., weights_only=True)` reads it.
        """
        return capture(self._at, self.program)

    def _retry(self) -> None:
        # An event that failed (memory, an interrupt in the user's loss) is still due.
        if self._at.due is not None:
            self._reach(*self._at.due)
        elif not self.done:
            self._choose()

    def _before_step(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._steps.begins(sys._getframe(1)):
            return
        if not self._at.rehearsing:
            self._pull()
        before_step(self._on, self._at, self._speed, (*args[1:], kwargs.get("closure")))

    def _after_step(self, *_: Any) -> None:
        if not self._steps.ends(sys._getframe(1)):
            return
        length = self.program.stages[self._at.stage].length
        after_step(self._on, self._at, self._speed, length)
        if self._at.rehearsing:
            return
        self._retry()
        self._at.total["iteration"] += 1
        self._at.iteration += 1
        if not self.done:
            self._advance(Step.iterations(self._at.iteration))

    def _pull(self) -> None:
        """Add a penalty's gradient, or shrink the weights, until the removal."""
        plan = self.program.stages[self._at.stage].plan
        now = self._passed(plan)
        if plan.penalty is None or now is None or self.done:
            return
        strengths = plan.penalty.strengths(now)
        pull(self._on.weights, self._pulled, self._at.pending, strengths, self._on.optimizer)

    @cached_property
    def _pulled(self) -> frozenset[str]:
        # Of any stage: they all have one scope. Matching globs at every step would take its time.
        return self._on.pulled(self.program.stages[0].plan)

    def _choose(self) -> None:
        """Choose what a penalty shall drive to zero, once it is time."""
        plan = self.program.stages[self._at.stage].plan
        now = self._passed(plan)
        if plan.penalty is None or self._at.pending is not None or now is None:
            return
        if now.value >= plan.penalty.choice.value:
            self._at.pending = self._on.choose(plan, self._at, self.program.seed)
            check_ranks(self._at.pending.checksum())

    def _passed(self, plan: Plan | UnitPlan) -> Step | None:
        """How far the stage is towards a penalty's removal; None after it."""
        if plan.penalty is None:
            return None
        count = {"epoch": self._at.epoch, "iteration": self._at.iteration}
        last: Step = plan.schedule.last  # type: ignore[union-attr]
        return Step(count[last.unit], last.unit) if count[last.unit] < last.value else None

    @property
    def _speed(self) -> float:
        """How fast remembered values are updated now."""
        return bool(self._at.away) * (self.program.stages[self._at.stage].plan.memory or 0.0)

    def begin(self) -> None:
        """Do the events of the start."""
        self._enter(0)
        self._at.explored = self._at.masks

    def _enter(self, stage: int) -> None:
        self._at.stage, self._at.epoch, self._at.iteration = stage, 0, 0
        plan, length = self.program.stages[stage].plan, self.program.stages[stage].length
        schedule = plan.schedule
        self._on.reparametrise(plan, self._at)
        if isinstance(schedule, SignalSchedule):
            self._follow(schedule.start())
            return
        for now in (Step.epochs(0), Step.iterations(0)):
            self._reach(schedule.target(now), plan.exchange_at(now))
        self._choose()
        if length is not None and not length.value:
            self._leave()

    def _advance(self, now: Step) -> None:
        stage = self.program.stages[self._at.stage]
        plan, length = stage.plan, stage.length
        if length is not None and now.unit == length.unit and now.value >= length.value:
            self._leave()
        elif not isinstance(plan.schedule, SignalSchedule):
            self._reach(plan.schedule.target(now), plan.exchange_at(now))
            self._choose()
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
        self._on.take_down(self._at)
        self._at.latent = None
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
        if is_ahead(plan, self._at, self._on.entries, density):
            return
        if not is_settled(plan, self._at, self._on.entries, density, exchange):
            self._at.due = (density, exchange)
            before = len(self._at.events)
            self._on.reach(plan, self._at, density, self.program.seed, exchange)
            if plan.rewind and len(self._at.events) > before:
                self._on.model.load_state_dict(self._at.states["dense"])
                project(self._on.weights, self._at.masks)
                clear(self._on.optimizer, self._on.model.parameters())
            check_ranks(self._at.masks.checksum())
        self._at.density, self._at.due = density, None
