"""A mask event from evidence to log entry, and the trial of one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.budget import Budget, kept_count
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.protocols import Weight
from regrow.engine.best_units import measure_of
from regrow.engine.event import decide
from regrow.engine.gather import Source, clone_state, gather
from regrow.engine.groups import Groups
from regrow.engine.memory import complete
from regrow.engine.perform import perform
from regrow.engine.plan import Plan
from regrow.engine.progress import Progress
from regrow.engine.unit_event import decide_units, decision_of, grows
from regrow.engine.unit_plan import UnitPlan
from regrow.model.collect import streams
from regrow.model.inventory import Inventory

Rehearse = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Occasion:
    """What events act on: the live network, its optimiser, and where evidence comes from.

    Attributes:
        model: the network.
        entries: the weights that are counted.
        masked: the parameters that have masks; the same, or all that belong to units too.
        weights: those, live.
        optimizer: updates them.
        source: loss and batches.
        rehearse: see `attach`.
        groups: what a program of units cuts.
    """

    model: nn.Module
    entries: Inventory
    masked: Inventory
    weights: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    source: Source
    rehearse: Rehearse | None
    groups: Groups | None = None

    def settled(self, plan: Plan | UnitPlan, at: Progress, density: float, exchange: float) -> bool:
        """Whether nothing is left to do at a density."""
        if isinstance(plan, UnitPlan):
            return density == (1.0 if at.density is None else at.density)
        kept = sum(at.masks.kept.values())
        same = density == at.density or kept == kept_count(self.entries.total, density)
        idle = kept == self.entries.total or (not plan.competes and exchange <= 0)
        return same and idle

    def reach(
        self, plan: Plan | UnitPlan, at: Progress, density: float, seed: int, exchange: float
    ) -> None:
        """Bring the masks to a density; `at` gets masks, memory and, if any mask moved, an event.

        Args:
            plan: of the present stage.
            at: where the program stands.
            density: the target, a fraction of all convolution and linear weights or, of units, of
                their budget.
            seed: the program's.
            exchange: the fraction of the living weights to cut beyond the target and regrow.

        Raises:
            RegrowError: as `gather`, `decide` and `perform` do.
        """
        if isinstance(plan, UnitPlan):
            entry = self._reach_units(plan, at, density, seed)
        else:
            entry = self._reach_weights(plan, at, density, seed, exchange)
        if entry["pruned"] or entry["regrown"]:
            at.events.append({"epoch": at.total["epoch"], "step": at.total["iteration"], **entry})

    def _reach_weights(
        self, plan: Plan, at: Progress, density: float, seed: int, exchange: float
    ) -> dict[str, Any]:
        before = at.masks
        growing = kept_count(self.entries.total, density) > sum(before.kept.values())
        evidence = gather(
            _needs(plan, growing, exchange) - {_TRIAL},
            self.model,
            self.entries,
            at.states,
            self.source,
            (seed, len(at.events)),
            plan.statistics,
            before,
        )
        whole: dict[str, Tensor] = {}
        if plan.memory is not None:
            whole = complete(self.weights, at.away)
            tensors = {**evidence.tensors, Need("weight", "remembered"): whole}
            if plan.competes:
                tensors[Need("weight")] = whole
            evidence = replace(evidence, tensors=tensors)
        if growing and plan.regrowth and _TRIAL in plan.regrowth.needs:
            evidence = replace(evidence, trial=self._trial(plan, at, density, evidence, exchange))
        decision = decide(plan, self.entries, before, density, evidence, exchange)
        owner = self._owner(plan)
        at.masks, entry = perform(decision, self.weights, before, owner, self.entries)
        at.away = {n: values.masked_fill(at.masks[n], 0) for n, values in whole.items()}
        return entry

    def _reach_units(
        self, plan: UnitPlan, at: Progress, density: float, seed: int
    ) -> dict[str, Any]:
        groups, before = self.groups, at.masks
        assert groups is not None
        units = groups.units(before)
        growing = grows(plan, groups, units, density)
        evidence = gather(
            plan.needs_to_grow if growing else plan.criterion.needs,
            self.model,
            self.masked,
            at.states,
            self.source,
            (seed, len(at.events)),
            plan.statistics,
        )
        keep = decide_units(plan, self.model, groups, units, density, evidence, growing=growing)
        decision = decision_of(groups, keep, self.weights, before, evidence)
        at.masks, entry = perform(decision, self.weights, before, self.optimizer, self.entries)
        if growing:
            self._restore_buffers(groups, units, keep, at.states["dense"])
        measure = measure_of(groups, plan.pattern.of)
        return {
            **entry,
            "of": plan.pattern.of,
            "reached": 1 - measure(keep) / measure({}),
            "units": {name: int(mask.sum()) for name, mask in keep.items()},
        }

    @torch.no_grad()
    def _restore_buffers(
        self,
        groups: Groups,
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
        dense: Mapping[str, Tensor],
    ) -> None:
        """Units return with the statistics that their norms had of them."""
        buffers = {name: buffer for name, buffer in self.model.named_buffers() if name in dense}
        lived, live = groups.masks(before, buffers), groups.masks(after, buffers)
        for name, buffer in buffers.items():
            buffer.copy_(torch.where(live[name] & ~lived[name], dense[name], buffer))

    def _owner(self, plan: Plan) -> torch.optim.Optimizer | None:
        """Whose moments start anew; a removed weight that goes on being updated keeps its own."""
        return None if plan.memory else self.optimizer

    def _trial(
        self, plan: Plan, at: Progress, density: float, evidence: Evidence, exchange: float
    ) -> Callable[[Mapping[str, int]], float]:
        grow, rehearse = plan.regrowth, self.rehearse
        assert grow is not None
        assert rehearse is not None

        def trial(counts: Mapping[str, int]) -> float:
            fixed = replace(plan, regrowth=replace(grow, allocation=_Fixed(counts)))
            modes = [(module, module.training) for module in self.model.modules()]
            state = clone_state(self.model)
            moments = copy.deepcopy(self.optimizer.state_dict())
            masks, away = at.masks, at.away
            decision = decide(fixed, self.entries, masks, density, evidence, exchange)
            at.rehearsing = True
            try:
                owner = self._owner(plan)
                at.masks, _ = perform(decision, self.weights, masks, owner, self.entries)
                at.away = {n: values.masked_fill(at.masks[n], 0) for n, values in away.items()}
                with streams():
                    return float(rehearse(self.model))
            finally:
                at.masks, at.away, at.rehearsing = masks, away, False
                self.model.load_state_dict(state)
                self.optimizer.load_state_dict(moments)
                for module, mode in modes:
                    module.training = mode

        return trial


_TRIAL = Need("trial")


def check_rehearse(needs: frozenset[Need], rehearse: Rehearse | None) -> None:
    """Refuse a program that learns by trial when nothing can be tried.

    Raises:
        RegrowError: `rehearse` is missing.
    """
    if rehearse is None and _TRIAL in needs:
        raise RegrowError(
            "the program learns layer budgets by trial: pass rehearse=, a function that fine-tunes "
            "the model briefly and returns a score."
        )


def _needs(plan: Plan, growing: bool, exchange: float) -> frozenset[Need]:
    """What this event asks for, which may be less than the plan does."""
    if plan.regrowth is None or (not growing and exchange <= 0):
        return plan.needs_to_cut
    if exchange > 0:
        return plan.needs
    return plan.regrowth.needs


@dataclass(frozen=True)
class _Fixed:
    """The counts that a trial is about."""

    units: Mapping[str, int]
    needs = frozenset[Need]()

    def counts(
        self,
        weights: tuple[Weight, ...],
        budget: Budget,
        pooled: Mapping[str, Tensor],
        evidence: Evidence,
    ) -> dict[str, int]:
        return dict(self.units)
