"""Lookahead in programs: the example, masks, resuming, and networks whose layers have no order."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from engine_small import batches, loss_fn, network
from lookahead_example import by_loop, close, columns, ones, rows, squares
from torch import Tensor, nn

import regrow
from regrow import recipes
from regrow.bench.models import digits_cnn
from regrow.core.errors import RegrowError
from regrow.engine.program import Program

EXAMPLE = torch.randn(1, 1, 4, 4)
DATA = batches(3, seed=3)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, pruning: Any) -> None:
    for batch in DATA:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    pruning.epoch_end()


def test_without_an_example_nothing_happens() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    program = recipes.lookahead(0.5, 3)
    for act in (
        lambda: regrow.prune(model, 0.5, criterion="lookahead"),
        lambda: regrow.prepare(model, program),
        lambda: regrow.attach(model, sgd(model), program),
    ):
        with pytest.raises(RegrowError, match="pass example="):
            act()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_one_call_cuts_to_the_unit_and_leaves_statistics_and_modes() -> None:
    model = digits_cnn().train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    counts = regrow.prune(model, 0.97, criterion="lookahead", example=torch.randn(2, 1, 8, 8))
    assert counts.kept == round(0.03 * counts.total)
    assert model.training
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


@pytest.mark.parametrize("pattern", ["element", {"name": "n_of_m", "n": 2, "m": 4}])
@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
def test_it_goes_with_allocations_and_patterns(allocation: str, pattern: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.Linear(8, 4))
    regrow.prune(
        model,
        0.5,
        criterion="lookahead",
        allocation=allocation,
        pattern=pattern,
        example=torch.randn(1, 8),
    )


def test_scores_after_a_cut_see_neighbours_that_are_cut() -> None:
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in ((6, 7), (7, 5), (5, 4))))
    x = torch.randn(1, 6)
    before = squares(model, x)["1.weight"]
    optimizer = sgd(model)
    pruning = regrow.attach(model, optimizer, recipes.lookahead(0.6, 3), example=x)
    first, middle, last = (pruning.masks[f"{i}.weight"] for i in range(3))
    live = [layer.weight * mask for layer, mask in zip(model, (first, middle, last), strict=True)]
    after = squares(model, x)["1.weight"]
    close(after, by_loop(live[1], rows(live[0]), columns(live[2])))
    assert (after < before)[middle].any()
    assert not after[~middle].any()


def programs() -> dict[str, Program]:
    criterion: Any = {"criterion": "lookahead"}
    return {
        "lookahead": recipes.lookahead(0.9, 4, allocation="uniform"),
        "iterative": recipes.iterative(0.9, 6, 3, **criterion),
        "gradual": recipes.gradual(0.9, 6, **criterion),
        "shuffled": recipes.iterative(0.9, 6, 3, criterion={"name": "shuffled", "of": "lookahead"}),
    }


@pytest.mark.parametrize("name", ["lookahead", "iterative", "gradual", "shuffled"])
def test_resumed_equals_uninterrupted_to_the_bit(name: str) -> None:
    program = programs()[name]
    assert Program.from_json(program.to_json()) == program
    assert program.epochs is not None
    model = network()
    optimizer = sgd(model)
    pruning = regrow.attach(model, optimizer, program, example=EXAMPLE)
    saved = io.BytesIO()
    for number in range(program.epochs):
        if number == 2:
            whole = (model.state_dict(), optimizer.state_dict(), pruning.state_dict())
            torch.save(whole, saved)
        epoch(model, optimizer, pruning)
    pruning.finalize()
    saved.seek(0)
    state, moments, progress = torch.load(saved, weights_only=True)
    again = network(99)
    again.load_state_dict(state)
    other = sgd(again)
    other.load_state_dict(moments)
    with pytest.raises(RegrowError, match="pass example="):
        regrow.attach(again, other, program, resume=progress)
    resumed = regrow.attach(again, other, program, resume=progress, example=EXAMPLE)
    for _ in range(2, program.epochs):
        epoch(again, other, resumed)
    resumed.finalize()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])
    assert resumed.masks.checksum() == pruning.masks.checksum()


class Around(nn.Module):
    """A linear layer, some operation, and another linear layer."""

    def __init__(self, between: Any, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(width, 3)
        if isinstance(between, nn.Module):
            self.between = between
        self.act = between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.act(self.first(x)))
        return out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return out


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).sigmoid()


def written(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :3] *= x[:, 3:]
    return y


UNDEFINED: dict[str, tuple[nn.Module, Tensor, str]] = {
    "attention": (Around(Attention()), torch.randn(2, 5, 4), r"in between\.inner"),
    "layer norm": (Around(nn.LayerNorm(6)), torch.randn(2, 4), "layer_norm"),
    "group norm": (Around(nn.GroupNorm(2, 6)), torch.randn(2, 4), "group_norm"),
    "gate": (Around(Gate()), torch.randn(2, 4), "mul scales or mixes"),
    "softmax": (Around(nn.Softmax(1)), torch.randn(2, 4), "softmax"),
    "halves": (Around(lambda x: x.chunk(2, 1)[0], 3), torch.randn(2, 4), "a part of the channels"),
    "glu": (Around(nn.GLU(), 3), torch.randn(2, 4), "glu"),
    "maximum": (Around(lambda x: torch.maximum(x, -x)), torch.randn(2, 4), "maximum"),
    "cumulative": (Around(lambda x: x.cumsum(1)), torch.randn(2, 4), "cumsum"),
    "twice": (
        Around(lambda x: torch.cat([x, x + x.relu()], 1), 12),
        torch.randn(2, 4),
        "beside others of the same layer",
    ),
    "other entries": (
        Around(lambda x: x.mean(2), 5),
        torch.randn(2, 5, 4),
        "fixed|entries",
    ),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_undefined_neighbours_are_refused_by_name(name: str) -> None:
    model, x, why = UNDEFINED[name]
    with pytest.raises(RegrowError, match=why) as error:
        regrow.prune(model, 0.5, criterion="lookahead", example=x)
    assert "weight" in str(error.value)
    assert all(p.ne(0).any() for p in model.parameters() if p.dim() > 1)
    regrow.prune(model, 0.5)


def test_writing_into_parts_and_recurrent_layers_are_refused() -> None:
    with pytest.raises(RegrowError, match="out of place"):
        regrow.prune(Around(written), 0.5, criterion="lookahead", example=torch.randn(2, 4))
    lstm = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
    with pytest.raises(RegrowError, match="recurrent"):
        regrow.prune(lstm, 0.5, criterion="lookahead", example=torch.randn(2, 3, 4))


def test_layers_without_neighbours_can_be_excluded() -> None:
    model = nn.Sequential(
        nn.Linear(4, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 5), nn.Linear(5, 3)
    )
    x = torch.randn(2, 4)
    with pytest.raises(RegrowError, match=r"between 1\.weight and 3\.weight"):
        regrow.prune(model, 0.2, criterion="lookahead", example=x)
    regrow.prune(model, 0.2, criterion="lookahead", example=x, exclude=("1", "3"))
    found = {name for name, p in model.named_parameters() if p.dim() > 1 and p.eq(0).any()}
    assert found == {"0.weight", "4.weight"}


class Computed(nn.Module):
    """A first layer whose weight is computed: nothing is known before the second."""

    def __init__(self) -> None:
        super().__init__()
        self.raw, self.second = nn.Parameter(torch.randn(6, 4)), nn.Linear(6, 3)
        self.register_buffer("mean", torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.raw / self.raw.norm()
        out: Tensor = self.second(nn.functional.linear((x - self.mean) / self.mean, weight).relu())
        return out


def test_a_layer_that_is_computed_is_no_missing_neighbour() -> None:
    with pytest.raises(RegrowError, match=r"before second\.weight, addmm|mm multiplies"):
        regrow.prune(Computed(), 0.5, criterion="lookahead", example=torch.randn(2, 4))


def test_what_is_done_to_the_input_does_not_matter() -> None:
    model = Around(nn.ReLU())
    found = squares(model, torch.randn(2, 4))
    whole = nn.Sequential(nn.Softmax(1), model)
    again = squares(whole, torch.randn(2, 4))
    for name, square in found.items():
        close(again[f"1.{name}"], square)


def test_what_is_not_used_is_refused() -> None:
    model = Around(nn.ReLU())
    model.spare = nn.Linear(3, 3)
    with pytest.raises(RegrowError, match=r"spare\.weight are not defined.*not used"):
        regrow.prune(model, 0.5, criterion="lookahead", example=torch.randn(2, 4))


class Words(nn.Module):
    """An embedding and positions before, and the embedding again behind, as of language models."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 6), nn.Embedding(5, 6)
        self.body, self.out = nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        here = self.words(x) + self.places(torch.arange(x.shape[1]))
        out: Tensor = self.out(self.body(here).relu())
        return out


def test_embeddings_are_layers_and_may_be_tied() -> None:
    model = Words()
    found = squares(model, torch.randint(0, 11, (2, 5)))
    words, places, body = model.words.weight, model.places.weight, model.body.weight
    close(found["body.weight"], by_loop(body, columns(words) + columns(places), columns(words)))
    first = by_loop(words, columns(body), ones(11))
    close(found["out.weight"], first + by_loop(words, rows(body), ones(11)))
