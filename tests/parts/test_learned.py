"""Learned budgets: the controller against torch's own modules, the search against its trials."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import chain

import pytest
import torch
from allocation_example import entries_of, problems
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from regrow.core.budget import Budget
from regrow.core.errors import RegrowError
from regrow.core.evidence import Evidence, Need
from regrow.parts.allocate import ALLOCATIONS
from regrow.parts.allocate.controller import (
    Controller,
    Episode,
    advantage,
    beta_at,
    controller,
    learn,
    loss_of,
    play,
)
from regrow.parts.allocate.learned import Learned

Reward = Callable[[Mapping[str, int]], float]
LAYERS = entries_of((1, 40), (1, 60), (1, 50), (1, 80))
NAMES = [e.name for e in LAYERS]
LOWER = dict(zip(NAMES, [1, 2, 3, 4], strict=True))
ROOM = dict(zip(NAMES, [39, 58, 47, 76], strict=True))
BUDGET = Budget(10 + 40, LOWER, {e.name: e.numel for e in LAYERS})


class Trials:
    """A reward that remembers what it was asked."""

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self.counts: list[dict[str, int]] = []
        self.rewards: list[float] = []

    def __call__(self, counts: Mapping[str, int]) -> float:
        self.counts.append(dict(counts))
        self.rewards.append(self.reward(counts))
        return self.rewards[-1]


def search(part: Learned, reward: Reward, *key: object) -> tuple[dict[str, int], Trials]:
    trials = Trials(reward)
    return part.counts(LAYERS, BUDGET, {}, Evidence({}, trial=trials, key=key)), trials


def grown(counts: Mapping[str, int], layer: int) -> int:
    return counts[NAMES[layer]] - LOWER[NAMES[layer]]


def constant(counts: Mapping[str, int]) -> float:
    return 0.5


def modules(policy: Controller) -> tuple[nn.LSTMCell, nn.Linear]:
    """The same policy as modules of torch."""
    cell = nn.LSTMCell(14, 64).double()
    head = nn.Linear(64, 11).double()
    with torch.no_grad():
        for own, theirs in zip(policy, chain(cell.parameters(), head.parameters()), strict=True):
            theirs.copy_(own)
    return cell, head


def by_hand(
    policy: Controller, capacities: list[int], units: int, actions: list[int]
) -> tuple[list[int], torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Units, log pi and entropy of given actions, with the parameters they depend on."""
    cell, head = modules(policy)
    state = None
    logits = torch.zeros(1, 11, dtype=torch.float64)
    left, units_of, logs, entropies = units, [], [], []
    for i, action in enumerate(actions):
        position = i / (len(capacities) - 1) if len(capacities) > 1 else 0.0
        context = [position, capacities[i] / sum(capacities), left / units]
        state = cell(
            torch.cat([logits[0], torch.tensor(context, dtype=torch.float64)])[None], state
        )
        logits = head(state[0])
        pi = torch.distributions.Categorical(logits=logits[0])
        logs.append(pi.log_prob(torch.tensor(action)))
        entropies.append(pi.entropy())
        units_of.append(round(action / 10 * min(capacities[i], left)))
        left -= units_of[-1]
    parameters = [*cell.parameters(), *head.parameters()]
    return units_of, torch.stack(logs).sum(), torch.stack(entropies).sum(), parameters


def drawn(given: list[int], capacities: list[int], units: int) -> list[int]:
    """The actions behind units given, where each layer takes at least ten."""
    actions, left = [], units
    for got, capacity in zip(given, capacities, strict=True):
        if not left:
            break
        most = min(capacity, left)
        (action,) = (a for a in range(11) if round(a * most / 10) == got)
        actions.append(action)
        left -= got
    return actions


@pytest.mark.parametrize("seed", range(5))
def test_an_episode_and_its_loss_against_modules_of_torch(seed: int) -> None:
    capacities, units = [100, 900, 400], 10_000
    draws = torch.Generator().manual_seed(seed)
    policy = controller(draws)
    episode = play(policy, capacities, units, draws)
    actions = drawn(episode.units, capacities, units)
    assert len(actions) == 3
    given, log_prob, entropy, parameters = by_hand(policy, capacities, units, actions)
    assert episode.units == given
    loss = loss_of(episode, advantage(0.91, 0.90), 0.3)
    expected = -(log_prob * 2.0 + 0.3 * entropy)  # (0.91 - 0.90) / 0.005 = 2.
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = torch.autograd.grad(loss, list(policy))
    for own, theirs in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(own, theirs)


def forced(policy: Controller, action: int) -> Controller:
    """The policy with one action nearly certain."""
    bias = torch.zeros(11, dtype=torch.float64)
    bias[action] = 1e4
    return policy._replace(b_head=bias)


@pytest.mark.parametrize(
    ("action", "units", "expected"),
    [
        (0, 30, [0, 0, 0]),
        (10, 30, [25, 5, 0]),
        (10, 25, [25, 0, 0]),
        (5, 30, [12, 9, 4]),  # 12.5 and 4.5 to even; min(25, 30), min(60, 18), min(8, 9).
        (10, 500, [25, 60, 8]),
    ],
)
def test_what_an_action_gives(action: int, units: int, expected: list[int]) -> None:
    draws = torch.Generator().manual_seed(0)
    episode = play(forced(controller(draws), action), [25, 60, 8], units, draws)
    assert episode.units == expected
    assert episode.entropy.item() == pytest.approx(0, abs=1e-9)


def test_actions_without_effect_do_not_count() -> None:
    draws = torch.Generator().manual_seed(0)
    policy = controller(draws)
    bias = torch.full((11,), -1e4, dtype=torch.float64)
    bias[9:] = 0.0  # Nine tenths or all, so 1 unit goes to the first layer in any case.
    episode = play(
        policy._replace(w_head=torch.zeros(11, 64).double(), b_head=bias), [9] * 3, 1, draws
    )
    assert episode.units == [1, 0, 0]
    assert episode.entropy.item() == pytest.approx(torch.tensor(2.0).log().item(), rel=1e-6)
    assert episode.log_prob.item() == pytest.approx(-episode.entropy.item())


def test_a_fresh_policy_is_uniform_in_the_usual_bounds_and_leaves_the_global_stream() -> None:
    before = torch.get_rng_state()
    policy = controller(torch.Generator().manual_seed(3))
    search(Learned(episodes=3), constant)
    assert torch.equal(before, torch.get_rng_state())
    for own, theirs in zip(policy, chain(*(m.parameters() for m in modules(policy))), strict=True):
        assert own.shape == theirs.shape
    values = torch.cat([weight.detach().flatten() for weight in policy]) * 8
    assert values.abs().max() <= 1
    assert values.mean().abs() < 0.02
    assert values.var().item() == pytest.approx(1 / 3, rel=0.02)


def test_advantage_is_clipped() -> None:
    assert advantage(0.5, 0.49) == pytest.approx(2)
    assert advantage(0.5, 0.51) == pytest.approx(-2)
    assert (advantage(9.0, 0.0), advantage(0.0, 9.0)) == (100, -100)


def test_beta_falls_over_the_first_two_fifths() -> None:
    values = [beta_at(e, 50) for e in range(50)]
    assert values[0] == 0.40
    assert values[5] == pytest.approx(0.31)
    assert values[10] == pytest.approx(0.22)
    assert values[19] > 0.04
    assert values[20:] == pytest.approx([0.04] * 30)
    assert beta_at(0, 1) == 0.40


@pytest.mark.parametrize(("scale", "clips"), [(1.0, True), (1e-3, False)])
def test_a_step_follows_the_gradient_with_its_norm_clipped(scale: float, clips: bool) -> None:
    draws = torch.Generator().manual_seed(1)
    policy = controller(draws)
    episode = play(policy, [100, 100], 10_000, draws)
    twin = [weight.detach().clone().requires_grad_() for weight in policy]
    gradients = torch.autograd.grad(episode.log_prob * scale, list(policy), retain_graph=True)
    for weight, gradient in zip(twin, gradients, strict=True):
        weight.grad = gradient.clone()
    assert bool(nn.utils.clip_grad_norm_(twin, 1.0) > 1) == clips
    # Plain descent, as Adam's first step hardly depends on the gradient's size.
    torch.optim.SGD(twin, lr=0.1).step()
    learn(policy, torch.optim.SGD(policy, lr=0.1), episode.log_prob * scale)
    for own, theirs in zip(policy, twin, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(problems(), st.integers(0, 9), st.sampled_from([1, 3, 6]))
def test_every_trial_meets_the_budget(problem, seed: int, episodes: int) -> None:  # type: ignore[no-untyped-def]
    entries, budget, _, _ = problem
    trials = Trials(lambda counts: (sum(i * c for i, c in enumerate(counts.values())) % 7) / 7)
    chosen = Learned(episodes).counts(entries, budget, {}, Evidence({}, trial=trials, key=(seed,)))
    for counts in (chosen, *trials.counts):
        assert list(counts) == [e.name for e in entries]
        assert sum(counts.values()) == budget.total
        assert all(budget.lower[n] <= c <= budget.upper[n] for n, c in counts.items())
    room = [budget.upper[n] - budget.lower[n] for n in budget.lower]
    units = budget.total - sum(budget.lower.values())
    choice = sum(r > 0 for r in room) > 1 and 0 < units < sum(room)
    assert len(trials.counts) == (episodes if choice else 0)
    if choice:
        assert chosen == trials.counts[trials.rewards.index(max(trials.rewards))]


def test_units_left_are_shared_by_the_room_left(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    # 40 units, of which 30 are given; the rooms left are 10, 40, 0 and 0.
    monkeypatch.setattr(
        "regrow.parts.allocate.learned.play",
        lambda policy, capacities, units, draws: Episode(
            [10, 0, 10, 10], policy.b_head.sum(), zero
        ),
    )
    upper = dict(zip(NAMES, [21, 42, 13, 14], strict=True))
    trials = Trials(constant)
    Learned(1).counts(LAYERS, Budget(50, LOWER, upper), {}, Evidence({}, trial=trials))
    assert trials.counts == [dict(zip(NAMES, [13, 10, 13, 14], strict=True))]


def test_the_controller_learns_where_the_reward_is() -> None:
    """Against a policy that nobody taught, on the same layers."""
    draws = torch.Generator().manual_seed(0)
    fresh = [play(controller(draws), list(ROOM.values()), 40, draws).units for _ in range(100)]
    for layer in (0, 1):
        part = Learned(episodes=300, patience=300)
        best, trials = search(part, lambda counts, at=layer: 0.05 * grown(counts, at) / 40, 3)  # type: ignore[misc]
        given = [grown(counts, layer) / 40 for counts in trials.counts]
        assert len(given) == 300
        assert grown(best, layer) / 40 == max(given)
        assert sum(given[-20:]) / 20 > sum(units[layer] / 40 for units in fresh) / 100 + 0.3


def test_the_best_reward_wins_and_the_first_among_equals() -> None:
    rewards = iter([0.1, 0.7, 0.2, 0.7, 0.6])
    best, trials = search(Learned(episodes=5), lambda counts: next(rewards), 1)
    assert best == trials.counts[1] != trials.counts[3]
    worse = iter([-0.5, -0.7, -0.6])
    best, trials = search(Learned(episodes=3), lambda counts: next(worse))
    assert best == trials.counts[0]


@pytest.mark.parametrize(
    ("patience", "rewards", "spent"),
    [
        (3, [0.5, 0.5, 0.4, 0.5, 0.9], 4),
        (3, [0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.9], 7),
        (40, [0.1] * 12, 12),
    ],
)
def test_the_search_ends_after_patience(patience: int, rewards: list[float], spent: int) -> None:
    given = iter(rewards)
    _, trials = search(Learned(len(rewards), patience=patience), lambda counts: next(given))
    assert len(trials.counts) == spent


def test_the_key_decides_and_nothing_else() -> None:
    def reward(counts: Mapping[str, int]) -> float:
        torch.rand(3)  # As fine-tuning would, from the global stream.
        return grown(counts, 2) / 40

    part = Learned(episodes=12)
    one, first = search(part, reward, 7, 0)
    torch.manual_seed(99)
    with torch.no_grad():
        other, again = search(part, reward, 7, 0)
    assert (one, first.counts) == (other, again.counts)
    assert search(part, reward, 7, 1)[1].counts != first.counts
    # What was rewarded changes what is tried next, from the third trial on.
    opposite = search(part, lambda counts: -reward(counts), 7, 0)[1].counts
    assert opposite[:2] == first.counts[:2]
    assert opposite != first.counts


def test_the_first_reward_starts_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(reward: float, baseline: float) -> float:
        seen.append(baseline)
        return 0.0

    monkeypatch.setattr("regrow.parts.allocate.learned.advantage", spy)
    rewards = iter([0.6, 0.8, 0.4, 0.0])
    search(Learned(episodes=4), lambda counts: next(rewards))
    assert seen == pytest.approx([0.6, 0.6, 0.62, 0.598])


def test_without_a_trial_the_room_decides() -> None:
    counts = Learned().counts(LAYERS, BUDGET, {}, Evidence({}))
    assert sum(counts.values()) == BUDGET.total
    for layer, name in enumerate(NAMES):
        assert abs(grown(counts, layer) - 40 * ROOM[name] / 220) < 1


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_no_number_is_refused(score: float) -> None:
    rewards = iter([0.5, score])
    with pytest.raises(RegrowError, match=r"trial 2 of the learned allocation scored"):
        search(Learned(), lambda counts: next(rewards))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes counts trials, a whole number >= 1; got 0"),
        ({"episodes": 2.5}, "episodes counts trials"),
        ({"patience": 0}, "patience counts trials"),
        ({"patience": True}, "patience counts trials"),
        ({"lr": 0.0}, "lr is a step size"),
        ({"lr": float("nan")}, "lr is a step size"),
        ({"lr": "5e-3"}, "lr is a step size"),
    ],
)
def test_fields_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(RegrowError, match=re.escape(message)):
        ALLOCATIONS.build({"name": "learned", **options})


def test_the_row() -> None:
    part = ALLOCATIONS.build({"name": "learned", "episodes": 7})
    assert part == Learned(episodes=7)
    assert part.needs == {Need("trial")}
    assert ALLOCATIONS.build(ALLOCATIONS.spec(part)) == part
