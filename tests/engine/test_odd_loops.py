"""Loops, networks and masks that are unusual, and sound all the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import regrow
from regrow import recipes
from regrow.core.errors import RegrowError
from regrow.parts.patterns.block import Block

Batch = tuple[Tensor, Tensor]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 4)
    )


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def batches(count: int = 4) -> list[Batch]:
    made = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 16, generator=made), torch.randint(0, 4, (8,), generator=made))
        for _ in range(count)
    ]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> int:
    count = 0
    for batch in data:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        count += 1
    return count


@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (0, 1), (4, 1), (2, 4), (2, 2)])
@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.85])
def test_a_ramp_over_blocks_ends_within_one_block(rows: int, columns: int, sparsity: float) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pattern = Block(rows, columns)
    program = recipes.gradual(sparsity, 40, criterion="magnitude", pattern=pattern)
    pruning = regrow.attach(model, optimizer, program)
    for _ in range(40):
        pruning.epoch_end()
    assert pruning.done
    largest = max(pattern.size(tuple(model[i].weight.shape)) for i in (0, 2, 4))
    found = regrow.inspect(model)
    kept = round((1 - sparsity) * found.total)
    assert kept - largest < found.kept <= kept + largest / 2
    # A network at a sparsity, to the block, is at that sparsity.
    again = recipes.one_shot(sparsity, 1, criterion="magnitude", pattern=pattern)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruning.finalize()
    assert not regrow.attach(model, optimizer, again, masks=dict(pruning.masks)).events


class Outer(torch.optim.Adam):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize("kind", [torch.optim.Adam, Outer])
def test_a_step_that_calls_its_parents_is_one_step(kind: type[torch.optim.Adam]) -> None:
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])  # its step has hooks from here on
    found = []
    for make in (torch.optim.Adam, kind):
        model = mlp()
        optimizer = make(model.parameters(), 1e-3)
        program = recipes.bidirectional(0.8, 6, memory=0.5)
        pruning = regrow.attach(model, optimizer, program, loss_fn=loss, data=batches())
        train(model, optimizer, batches())
        with pytest.raises(TypeError, match="not callable"):  # a step that fails
            optimizer.step(3)
        pruning.epoch_end()
        train(model, optimizer, batches())
        state = pruning.state_dict()
        assert state["progress"]["total"]["iteration"] == 8
        found.append((model.state_dict(), state["progress"]["away"]))
    (one, away), (other, put) = found
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(away[name], put[name]) for name in away)


class Languid(nn.Module):
    """An embedding that is tied to the head, after a residual block."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.norm = nn.Embedding(20, 16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 20, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        hidden = hidden + self.down(self.up(self.norm(hidden)).relu())
        return self.head(self.norm(hidden))


@pytest.mark.parametrize("tied", [False, True])
def test_units_of_a_network_whose_embedding_is_its_head(tied: bool) -> None:
    tokens = torch.randint(0, 20, (4, 5))
    model = Languid(tied).eval()
    program = recipes.one_shot(0.3, 1, pattern="unit")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    pruning = regrow.attach(model, optimizer, program, example=tokens)
    model(tokens).square().mean().backward()
    optimizer.step()
    pruning.epoch_end()
    pruning.finalize()
    assert sum(int((~mask).sum()) for mask in pruning.units.values())
    names = [entry.name for entry in pruning._on.masked]
    assert len(names) == len(set(names))
    expected = model(tokens)
    for keep in (pruning.units, pruning.masks):
        shrunk = regrow.shrink(model, tokens, keep, groups=pruning.groups).model
        torch.testing.assert_close(shrunk(tokens), expected)
        assert (shrunk.head.weight is shrunk.embedding.weight) == tied


@pytest.mark.parametrize("workers", [0, 1])
def test_an_event_leaves_the_epoch_that_is_under_way_alone(workers: int) -> None:
    data = TensorDataset(torch.randn(64, 16), torch.randint(0, 4, (64,)))
    made = torch.Generator().manual_seed(0)
    sampler = RandomSampler(data, generator=made)
    for given in (
        {"batch_size": 8, "sampler": sampler},
        {"batch_sampler": BatchSampler(sampler, 8, drop_last=False)},
    ):
        loader: Any = DataLoader(
            data, num_workers=workers, persistent_workers=bool(workers), **given
        )
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        program = recipes.rigl(0.8, epochs=3, every="3it", end="30it")
        before = made.get_state()
        regrow.prune(model, 0.5, criterion="taylor", loss_fn=loss, data=loader)
        assert torch.equal(before, made.get_state())
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        pruning = regrow.attach(model, optimizer, program, loss_fn=loss, data=loader)
        assert [train(model, optimizer, loader) for _ in range(2)] == [8, 8]
        assert len(pruning.events) >= 3


@pytest.mark.parametrize("name", ["gradual", "iterative", "bidirectional", "patience"])
def test_a_ramp_goes_on_where_it_passes_the_masks_that_are_there(name: str) -> None:
    model = mlp()
    regrow.prune(model, 0.6)
    masks = {f"{i}.weight": model[i].weight != 0 for i in (0, 2, 4)}
    program = {
        "gradual": recipes.gradual(0.9, 10),
        "iterative": recipes.iterative(0.9, 10, cuts=5),
        "bidirectional": recipes.bidirectional(0.9, 10),
        "patience": recipes.iterative(0.9, 10, cuts=5, patience=1),
    }[name]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    pruning = regrow.attach(model, optimizer, program, masks=masks, loss_fn=loss, data=batches())
    least = 1.0
    for epoch in range(10):
        if pruning.done:
            break
        least = min(least, pruning.sparsity)
        train(model, optimizer, batches())
        pruning.epoch_end(val_accuracy=float(epoch == 0))
    assert least == pytest.approx(0.6, abs=1e-3)
    assert pruning.sparsity == pytest.approx(0.9, abs=1e-3)


def test_masks_that_ask_for_growth_grow() -> None:
    model = mlp()
    regrow.prune(model, 0.9)
    masks = {f"{i}.weight": model[i].weight != 0 for i in (0, 2, 4)}
    program = recipes.manual((0.5,), (0,), 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with pytest.raises(RegrowError, match="above the present one"):
        regrow.attach(model, optimizer, program, masks=masks)


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.int64])
def test_masks_are_booleans_of_known_weights(kind: torch.dtype) -> None:
    model = mlp()
    masks = {f"{i}.weight": model[i].weight != 0 for i in (0, 2, 4)}
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    wrong = {name: mask.to(kind) for name, mask in masks.items()}
    with pytest.raises(RegrowError, match="give booleans"):
        regrow.attach(model, optimizer, recipes.one_shot(0.5, 1), masks=wrong)
    more = {**masks, "6.weight": masks["0.weight"]}
    with pytest.raises(RegrowError, match=r"6\.weight"):
        regrow.attach(model, optimizer, recipes.one_shot(0.5, 1), masks=more)


def test_after_detach_nothing_is_cut() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    pruning = regrow.attach(model, optimizer, recipes.gradual(0.9, 10))
    pruning.epoch_end()
    reached = pruning.sparsity
    pruning.detach()
    train(model, optimizer, batches())
    pruning.epoch_end()
    assert pruning.sparsity == reached > 0


def test_a_checkpoint_is_the_callers() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    program = recipes.bidirectional(0.8, 6, memory=0.5)
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss, data=batches())
    pruning.epoch_end()
    train(model, optimizer, batches())
    saved = pruning.state_dict()
    assert saved["progress"]["away"]
    kept = copy.deepcopy(saved["progress"]["away"])
    train(model, optimizer, batches())
    assert all(torch.equal(saved["progress"]["away"][n], values) for n, values in kept.items())
    pruning.detach()
    twin = mlp()
    twin.load_state_dict({n: w.clone() for n, w in model.state_dict().items()})
    with torch.no_grad():
        for name, weight in twin.named_parameters():
            if name in pruning.masks:
                weight.masked_fill_(~pruning.masks[name], 0)
    other = torch.optim.SGD(twin.parameters(), 0.01)
    regrow.attach(twin, other, program, loss_fn=loss, data=batches(), resume=saved)
    train(twin, other, batches())
    assert all(torch.equal(saved["progress"]["away"][n], values) for n, values in kept.items())


class Noted(nn.Linear):
    """A layer whose state dict holds more than tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 3}


def test_states_that_are_no_tensors_are_remembered_too() -> None:
    model = nn.Sequential(Noted(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    program = recipes.iterative(0.5, 6, cuts=2, patience=1, rewind=True)
    pruning = regrow.attach(model, optimizer, program)
    for _ in range(6):
        if not pruning.done:
            pruning.epoch_end(val_accuracy=0.5)
    assert pruning.done
    assert pruning.sparsity == pytest.approx(0.5, abs=0.01)


def test_gradients_of_the_loop_outlast_a_trial() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def rehearse(model: nn.Module) -> float:
        return -train(model, optimizer, batches(1))

    program = recipes.bidirectional_paper(
        0.5, 0.8, (1, 1), layers={"name": "learned", "episodes": 3}
    )
    pruning = regrow.attach(
        model, optimizer, program, loss_fn=loss, data=batches(), rehearse=rehearse
    )
    train(model, optimizer, batches(1))
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    pruning.epoch_end()
    after = [p.grad for p in model.parameters()]
    assert pruning.events[-1]["regrown"]
    assert all(a is not None and torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("maximize", [False, True])
def test_a_pull_is_to_zero_whichever_way_the_optimiser_climbs(maximize: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, maximize=maximize)
    before = sum(
        float(w.detach().abs().sum()) for n, w in model.named_parameters() if "weight" in n
    )
    regrow.attach(
        model,
        optimizer,
        recipes.greg2(0.8, 20, removal="40it", every="1it"),
        loss_fn=loss,
        data=batches(),
    )
    for _ in range(20):
        optimizer.zero_grad()
        (0 * loss(model, batches(1)[0])).backward()
        optimizer.step()
    after = sum(float(w.detach().abs().sum()) for n, w in model.named_parameters() if "weight" in n)
    assert after < before


def test_what_is_excluded_needs_no_evidence() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.small = nn.Linear(16, 8), nn.Linear(8, 4)
            self.aux = nn.Linear(8, 4)

        def forward(self, images: Tensor) -> Tensor:
            hidden = self.main(images).relu()
            return self.small(hidden) + (self.aux(hidden) if self.training else 0)

    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    program = recipes.bidirectional_paper(0.4, 0.6, (1, 1), layers="ssim_fill", exclude=("aux",))
    pruning = regrow.attach(model, optimizer, program, loss_fn=loss, data=batches())
    pruning.epoch_end()
    pruning.epoch_end()
    assert pruning.done
    assert bool((model.aux.weight != 0).all())
    big = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 20_000))
    optimizer = torch.optim.SGD(big.parameters(), 0.01)
    limits = {"chunk": 64, "memory_gib": 0.01, "exclude": ("2",)}
    done = recipes.woodfisher(0.0005, 2, **limits)  # type: ignore[arg-type]
    regrow.prepare(big, done)
