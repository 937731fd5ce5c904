"""A mask event from evidence to log entry, and the trial of one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.budget import Budget, kept_count
from regrow.core.decision import Decision
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.core.maskset import MaskSet
from regrow.core.protocols import Weight
from regrow.engine.best_units import measure_of
from regrow.engine.event import decide, scope
from regrow.engine.gather import Source, check_ranks, clone_state, gather
from regrow.engine.groups import Groups
from regrow.engine.latent import Latent
from regrow.engine.memory import complete
from regrow.engine.perform import perform, told
from regrow.engine.plan import Plan
from regrow.engine.progress import Progress
from regrow.engine.unit_event import decide_units, decision_of, grows
from regrow.engine.unit_plan import UnitPlan
from regrow.model.collect import streams
from regrow.model.inventory import Inventory, weights_of

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

    def check_live(self, masks: MaskSet) -> None:
        """Refuse weights that something else than the optimiser has moved.

        Raises:
            RegrowError: removed weights have values, or the network has another tensor.
        """
        for name, weight in weights_of(self.model, self.masked).items():
            moved = weight is not self.weights[name]
            if moved or bool(weight.detach()[masks.removed(name).to(weight.device)].any()):
                raise RegrowError(
                    f"{name}: removed entries have values again, or the model has a new tensor in "
                    "its place. Train with the optimiser that was given to attach and load weights "
                    "before it; for a new optimiser or new weights, attach anew with masks=."
                )

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
        if at.pending is not None:
            entry = self._remove(plan, at, at.pending)
        elif isinstance(plan, UnitPlan):
            entry = self._reach_units(plan, at, density, seed)
        else:
            entry = self._reach_weights(plan, at, density, seed, exchange)
        if entry["regrown"]:
            at.explored = at.explored | at.masks
        if entry["pruned"] or entry["regrown"]:
            at.events.append({"epoch": at.total["epoch"], "step": at.total["iteration"], **entry})

    def choose(self, plan: Plan | UnitPlan, at: Progress, seed: int) -> MaskSet:
        """What a penalty shall leave: the masks of the plan's removal, as scores are now.

        Raises:
            RegrowError: as `gather` and `decide` do.
        """
        density = plan.schedule.target(plan.schedule.last)  # type: ignore[union-attr]
        assert density is not None
        if isinstance(plan, UnitPlan):
            return MaskSet(self._decide_units(plan, at, density, seed)[1].keep)
        key = (seed, len(at.events))
        evidence = self._gathered(plan, at, key, plan.needs_to_cut)
        return MaskSet(decide(plan, self.entries, at.masks, density, evidence).keep)

    def pulled(self, plan: Plan | UnitPlan) -> frozenset[str]:
        """Names of the parameters that a penalty pulls on."""
        if self.groups is not None:
            return frozenset(entry.name for entry in self.groups.members(self.model))
        assert isinstance(plan, Plan)
        return frozenset(entry.name for entry in scope(plan, self.entries))

    def reparametrise(self, plan: Plan | UnitPlan, at: Progress) -> None:
        """Begin to train other weights than the network uses, if the plan says so."""
        if plan.reparam is None:
            return
        assert isinstance(plan, Plan)
        chosen = [entry.name for entry in scope(plan, self.entries)]
        at.latent = Latent(plan.reparam, {name: self.weights[name] for name in chosen})
        at.latent.use()

    def take_down(self, at: Progress) -> None:
        """Take down as an event which weights a reparametrisation has made zero by now."""
        if at.latent is None or (at.events and at.events[-1]["step"] == at.total["iteration"]):
            return
        before, at.masks = at.masks, at.masks.replaced(at.latent.alive())
        at.explored = at.explored | at.masks
        entry = told(before, before, at.masks, self.entries) | at.latent.told()
        at.events.append({"epoch": at.total["epoch"], "step": at.total["iteration"], **entry})
        check_ranks(at.masks.checksum())

    def _remove(self, plan: Plan | UnitPlan, at: Progress, pending: MaskSet) -> dict[str, Any]:
        decision = Decision(dict(pending))
        before, at.pending = at.masks, None
        at.masks, entry = perform(decision, self.weights, before, self.optimizer, self.entries)
        if isinstance(plan, UnitPlan):
            assert self.groups is not None
            entry |= self._units_told(plan, self.groups.units(at.masks))
        return entry

    def _gathered(
        self,
        plan: Plan | UnitPlan,
        at: Progress,
        key: tuple[object, ...],
        needs: frozenset[Need],
    ) -> Evidence:
        entries = self.masked
        if not isinstance(
            plan, UnitPlan
        ):  # What is excluded may be of a kind that has no evidence.
            entries = Inventory(scope(plan, self.entries))
        return gather(
            needs, self.model, entries, at.states, self.source, key, plan.statistics, at.masks
        )

    def _reach_weights(
        self, plan: Plan, at: Progress, density: float, seed: int, exchange: float
    ) -> dict[str, Any]:
        entry: dict[str, Any] = {}
        present = sum(at.masks.kept.values()) / self.entries.total
        for number, part in enumerate(plan.steps(present, density)):
            key = (seed, len(at.events), *([number] if number else []))
            found = self._reach_once(plan, at, part, key, exchange)
            entry = merged(entry, found) if entry else found
        return entry

    def _reach_once(
        self, plan: Plan, at: Progress, density: float, key: tuple[object, ...], exchange: float
    ) -> dict[str, Any]:
        before = at.masks
        growing = kept_count(self.entries.total, density) > sum(before.kept.values())
        needs = _needs(plan, growing, exchange) - {_TRIAL}
        evidence = self._gathered(plan, at, key, needs)
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
        keep, decision = self._decide_units(plan, at, density, seed)
        at.masks, entry = perform(decision, self.weights, before, self.optimizer, self.entries)
        if grows(plan, groups, units, density):
            self._restore_buffers(groups, units, keep, at.states["dense"])
        return {**entry, **self._units_told(plan, keep)}

    def _decide_units(
        self, plan: UnitPlan, at: Progress, density: float, seed: int
    ) -> tuple[dict[str, Tensor], Decision]:
        groups = self.groups
        assert groups is not None
        units = groups.units(at.masks)
        growing = grows(plan, groups, units, density)
        needs = plan.needs_to_grow if growing else plan.criterion.needs
        evidence = self._gathered(plan, at, (seed, len(at.events)), needs)
        keep = decide_units(plan, self.model, groups, units, density, evidence, growing=growing)
        return keep, decision_of(groups, keep, self.weights, at.masks, evidence)

    def _units_told(self, plan: UnitPlan, keep: Mapping[str, Tensor]) -> dict[str, Any]:
        assert self.groups is not None
        measure = measure_of(self.groups, plan.pattern.of)
        return {
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
            grads = [(p, p.grad) for p in self.model.parameters()]
            for parameter, _ in grads:
                parameter.grad = None
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
                for parameter, grad in grads:
                    parameter.grad = grad
                for module, mode in modes:
                    module.training = mode

        return trial


_TRIAL = Need("trial")


def merged(first: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """One log entry of two cuts, one right after the other."""
    layers = [
        {**b, "kept_before": a["kept_before"], "pruned": a["pruned"] + b["pruned"]}
        for a, b in zip(first["layers"], later["layers"], strict=True)
    ]
    return {**later, "pruned": first["pruned"] + later["pruned"], "layers": layers}


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
