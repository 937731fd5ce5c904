"""What a handle notices: two of them, a lost hook, failed events, masks to start from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from engine_small import batches, loss_fn, network
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import regrow
from regrow import recipes
from regrow.engine.gather import Source, gather
from regrow.model.inventory import inventory


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> None:
    for batch in data:
        loss_fn(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_second_handle_on_one_optimiser_is_refused_until_the_first_lets_go() -> None:
    model = network()
    optimizer = sgd(model)
    first = regrow.attach(model, optimizer, recipes.one_shot(0.5, 1))
    with pytest.raises(regrow.RegrowError, match="held by another pruning handle"):
        regrow.attach(model, optimizer, recipes.one_shot(0.9, 1))
    first.detach()
    regrow.attach(model, optimizer, recipes.one_shot(0.9, 1), masks=first.masks).detach()


def test_training_with_another_optimiser_is_noticed() -> None:
    model = network()
    pruning = regrow.attach(model, sgd(model), recipes.one_shot(0.5, 1))
    epoch(model, torch.optim.AdamW(model.parameters(), lr=0.01), batches(2))
    with pytest.raises(regrow.RegrowError, match="removed entries have values again"):
        pruning.epoch_end()


def test_weights_replaced_by_new_tensors_are_noticed() -> None:
    model = network()
    pruning = regrow.attach(model, sgd(model), recipes.one_shot(0.5, 1))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    with pytest.raises(regrow.RegrowError, match="a new tensor in its place"):
        pruning.epoch_end()


def test_a_failed_event_is_still_due() -> None:
    model, data = network(), batches(2)
    optimizer = sgd(model)
    fail = False

    def fragile(net: nn.Module, batch: Any) -> Tensor:
        if fail:
            raise MemoryError("out of memory")
        return loss_fn(net, batch)

    program = recipes.bidirectional_paper(0.5, 0.9, (1, 2), regrow="gradient")
    pruning = regrow.attach(model, optimizer, program, loss_fn=fragile, data=data)
    epoch(model, optimizer, data)
    fail = True
    with pytest.raises(MemoryError):
        pruning.epoch_end()
    assert pruning.sparsity == pytest.approx(0.9, abs=0.01)
    fail = False
    epoch(model, optimizer, data)
    assert pruning.sparsity == pytest.approx(0.5, abs=0.01)


def test_masks_of_a_file_are_where_a_program_can_start(tmp_path: Any) -> None:
    model, data = network(), batches(2)
    cut = regrow.attach(model, sgd(model), recipes.one_shot(0.9, 1))
    cut.epoch_end()
    cut.finalize()
    regrow.save(model, tmp_path / "m.regrow", masks=cut.masks)
    fresh = network(seed=1)
    regrow.load(fresh, tmp_path / "m.regrow")
    masks = regrow.load_masks(tmp_path / "m.regrow")
    assert masks.checksum() == cut.masks.checksum()
    optimizer = sgd(fresh)
    program = recipes.manual((0.9, 0.5), (0, 1), 2, regrow="gradient")
    grown = regrow.attach(fresh, optimizer, program, loss_fn=loss_fn, data=data, masks=masks)
    assert grown.sparsity == cut.sparsity
    grown.epoch_end()
    assert grown.sparsity == pytest.approx(0.5, abs=0.01)
    assert all(bool((grown.masks[name] >= masks[name]).all()) for name in masks)
    other = network(seed=2)
    with pytest.raises(regrow.RegrowError, match="values where the masks removed them"):
        regrow.attach(other, sgd(other), program, loss_fn=loss_fn, data=data, masks=masks)


def test_a_loss_that_ignores_its_model_is_refused() -> None:
    model = network()
    program = recipes.one_shot(0.5, 1, criterion="taylor")

    def outside(_: nn.Module, batch: Any) -> Tensor:
        return loss_fn(other, batch)

    other = network(seed=1)
    with pytest.raises(regrow.RegrowError, match="does not depend on the weights"):
        regrow.attach(model, sgd(model), program, loss_fn=outside, data=batches(2))


def test_an_iterator_is_refused_as_data() -> None:
    model = network()
    program = recipes.one_shot(0.5, 1, criterion="taylor")
    with pytest.raises(regrow.RegrowError, match="`data` is an iterator"):
        regrow.attach(model, sgd(model), program, loss_fn=loss_fn, data=iter(batches(2)))


def test_equal_networks_are_undamaged_whatever_the_loader_draws() -> None:
    model = network()
    images = torch.cat([batch[0] for batch in batches(4)])
    labels = torch.cat([batch[1] for batch in batches(4)])
    own = torch.Generator().manual_seed(0)
    loader = DataLoader(TensorDataset(images, labels), 4, shuffle=True, generator=own)
    before = own.get_state(), np.random.get_state()[1].tolist(), random.getstate()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evidence = gather(
        frozenset({regrow_need()}),
        model,
        inventory(model),
        {"dense": state},
        Source(loss_fn, loader, 2),
        (0,),
        "batch",
    )
    assert evidence.damage is not None
    assert set(evidence.damage.values()) == {1.0}
    after = own.get_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def regrow_need() -> Any:
    from regrow.core.evidence import Need

    return Need("damage")


def test_nan_in_the_reference_is_refused() -> None:
    model = network()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    next(iter(state.values()))[0] = torch.nan
    program = recipes.manual((0.9, 0.5), (0, 1), 2, regrow="random", value="reference")
    with pytest.raises(regrow.RegrowError, match="NaN or infinite"):
        regrow.attach(model, sgd(model), program, reference=state)


def test_targets_on_the_way_are_checked_before_training() -> None:
    model = network()
    with pytest.raises(regrow.RegrowError, match="more than the"):
        regrow.prepare(model, recipes.gradual(0.5, 8, pattern="n_of_m", exclude=["0"]))
    with pytest.raises(regrow.RegrowError, match="floors"):
        regrow.prepare(model, recipes.manual((0.5, 0.9999, 0.9), (0, 2, 4), 6, regrow="random"))
    with pytest.raises(regrow.RegrowError, match="candidate layers hold only"):
        regrow.prepare(model, recipes.bidirectional_paper(0.2, 0.9, (3, 3), candidates="0"))


def test_attention_has_damage_too() -> None:
    model = nn.Sequential(
        nn.Linear(6, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)
    )
    data = [(torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(s)), 0) for s in (0, 1)]

    def loss(net: nn.Module, batch: Any) -> Tensor:
        return net(batch[0]).square().mean()

    optimizer = sgd(model)
    program = recipes.bidirectional_paper(0.5, 0.8, (1, 1), layers="ssim_proportional")
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss, data=data)
    pruning.epoch_end()
    pruning.epoch_end()
    pruning.finalize()
    assert pruning.events[-1]["kind"] == "regrow"


def test_states_that_nothing_needs_any_more_are_dropped() -> None:
    model, data = network(), batches(2)
    program = recipes.bidirectional_paper(0.5, 0.9, (1, 1))
    pruning = regrow.attach(model, sgd(model), program, loss_fn=loss_fn, data=data)
    assert set(pruning.state_dict()["progress"]["states"]) == {"dense"}
    pruning.epoch_end()
    pruning.epoch_end()
    assert pruning.state_dict()["progress"]["states"] == {}
