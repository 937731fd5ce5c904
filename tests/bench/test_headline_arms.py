"""The arms of the headline study are fair: the same steps for all, and the target met by all."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "headline"
sys.path.insert(0, str(FOLDER))

from arms import ARMS, Setting  # noqa: E402
from resnet20 import SPEC as RESNET20  # noqa: E402
from vgg16 import SPEC as VGG16  # noqa: E402
from vgg16_quarter import SPEC as QUARTER  # noqa: E402

from regrow.bench.models import resnet20, vgg16_bn  # noqa: E402
from regrow.core.evidence import Need  # noqa: E402
from regrow.engine.prepare import validate  # noqa: E402
from regrow.engine.program import sparsities  # noqa: E402

PRUNED = [name for name, arm in ARMS.items() if arm.program is not None]
AT = Setting(0.98, 0.993, 8, 313)


def program_of(name: str, at: Setting = AT) -> Any:
    make = ARMS[name].program
    assert make is not None
    return make(at, 3)


@pytest.mark.parametrize("name", PRUNED)
def test_every_arm_ends_at_the_target_on_both_networks(name: str) -> None:
    program = program_of(name)
    assert program.seed == 3
    wanted = 0.993 if name == "no_regrowth" else 0.98
    assert program.sparsity == pytest.approx(wanted, abs=1e-12)
    for model in (resnet20(), vgg16_bn(width=0.25)):
        validate(model, program, has_reference=False)


@pytest.mark.parametrize("name", PRUNED)
@pytest.mark.parametrize("at", [AT, Setting(0.95, 0.98, 60, 352)])
def test_every_arm_has_the_same_steps(name: str, at: Setting) -> None:
    program = program_of(name, at)
    steps = program.epochs * at.steps
    for stage in program.stages:
        grow = stage.plan.regrowth
        if grow is not None and Need("trial") in grow.needs:
            steps += grow.allocation.episodes * 20
    # Trials come in whole episodes of 20 steps.
    assert at.epochs * at.steps - 20 < steps <= at.epochs * at.steps
    last = program.stages[-1].plan.schedule.last
    passed = last.value if last.unit == "iteration" else last.value * at.steps
    assert passed <= 0.91 * at.epochs * at.steps, "the final masks need time to train"


def test_the_course_goes_down_as_often_as_it_says() -> None:
    every = sparsities(program_of("decompression").stages[0].plan.schedule)
    listed = [sparsity for sparsity, _ in groupby(every)]
    tops = [b for a, b, c in zip([0.0, *listed], listed, [*listed[1:], 0.0], strict=False)
            if a < b and c < b]  # fmt: skip
    assert tops == pytest.approx([0.98, 0.98])


@pytest.mark.parametrize("spec", [QUARTER, RESNET20, VGG16])
def test_tables_have_enough_seeds_and_the_small_network_is_small(spec: Any) -> None:
    table = spec.table()
    assert min(len(seeds) for seeds in table.seeds.values()) >= 3
    mains = [name for name in table.seeds if ARMS[name.partition("@")[0]].main]
    assert max(len(table.seeds[name]) for name in mains) == 5
    for point in spec.points:
        if f"small_dense@{100 * point.sparsity:g}" not in table.arms:
            continue
        small = table.arms[f"small_dense@{100 * point.sparsity:g}"](0)
        model = small.task.models[small.model](torch.Generator())
        weights = sum(w.numel() for w in model.parameters() if w.ndim > 1)
        full = spec.task.models[spec.model](torch.Generator())
        total = sum(w.numel() for w in full.parameters() if w.ndim > 1)
        assert weights == pytest.approx((1 - point.sparsity) * total, rel=0.15)
        assert sum(small.cycles) == spec.training.dense_epochs + spec.epochs
    starts = {make(1).dense().key for name, make in table.arms.items() if "small" not in name}
    assert len(starts) == 1, "all arms of a seed start from one dense network"
