"""The recurrent policy that shares units out, layer by layer, and its REINFORCE loss."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

ACTIONS = 11
"""Tenths of what a layer can take: 0, 0.1, ..., 1."""
HIDDEN = 64
CONTEXT = 3
TAU = 0.005
MOST_ADVANTAGE = 100.0
BETA = (0.40, 0.04)
EXPLORING = 0.4
CLIP = 1.0


class Controller(NamedTuple):
    """Weights of an LSTM cell (gates in the order input, forget, cell, output) and a linear head.

    Shapes: w_input (4H, A + C), w_hidden (4H, H), b_input and b_hidden (4H,), w_head (A, H),
    b_head (A,), with H = HIDDEN, A = ACTIONS and C = CONTEXT. In double precision, so that
    machines that sum in another order still draw the same actions.
    """

    w_input: Tensor
    w_hidden: Tensor
    b_input: Tensor
    b_hidden: Tensor
    w_head: Tensor
    b_head: Tensor


class Episode(NamedTuple):
    """One pass over the layers.

    Attributes:
        units: given to each layer.
        log_prob: sum of log pi of the actions drawn, with gradient.
        entropy: sum over the actions of the entropy of pi, with gradient.
    """

    units: list[int]
    log_prob: Tensor
    entropy: Tensor


def controller(draws: torch.Generator) -> Controller:
    """A fresh policy: every weight uniform in +-1 / sqrt(H), the usual start of both layers."""
    bound = 1 / sqrt(HIDDEN)

    def weight(*shape: int) -> Tensor:
        values = torch.empty(shape, dtype=torch.float64)
        return values.uniform_(-bound, bound, generator=draws).requires_grad_()

    gates = 4 * HIDDEN
    return Controller(
        weight(gates, ACTIONS + CONTEXT),
        weight(gates, HIDDEN),
        weight(gates),
        weight(gates),
        weight(ACTIONS, HIDDEN),
        weight(ACTIONS),
    )


def play(
    policy: Controller, capacities: Sequence[int], units: int, draws: torch.Generator
) -> Episode:
    """One action per layer in order, while units remain.

    At layer l the cell reads the logits of the layer before (zeros at the first) and
    [position of l in [0, 1], capacity_l / sum of capacities, remaining / units]; the action
    j, drawn from softmax(logits), gives the layer round(j / 10 * min(capacity_l, remaining)).

    Args:
        policy: the controller.
        capacities: the most units for each layer, all positive.
        units: to share out, positive.
        draws: the source of the actions.
    """
    given = [0] * len(capacities)
    remaining, whole, last = units, sum(capacities), max(1, len(capacities) - 1)
    hidden = cell = policy.w_input.new_zeros(1, HIDDEN)
    logits = policy.w_input.new_zeros(1, ACTIONS)
    log_prob = entropy = policy.w_input.new_zeros(())
    for layer, capacity in enumerate(capacities):
        if not remaining:
            break  # Actions without effect would only blur the gradient.
        context = logits.new_tensor([[layer / last, capacity / whole, remaining / units]])
        hidden, cell = torch.lstm_cell(
            torch.cat([logits, context], dim=1), (hidden, cell), *policy[:4]
        )
        logits = hidden @ policy.w_head.T + policy.b_head
        log_pi = logits.log_softmax(dim=1)[0]
        action = int(torch.multinomial(log_pi.detach().exp(), 1, generator=draws))
        log_prob = log_prob + log_pi[action]
        entropy = entropy - (log_pi.exp() * log_pi).sum()
        given[layer] = round(action * min(capacity, remaining) / (ACTIONS - 1))
        remaining -= given[layer]
    return Episode(given, log_prob, entropy)


def advantage(reward: float, baseline: float) -> float:
    """clip((R - b) / tau, -100, 100)."""
    return max(-MOST_ADVANTAGE, min(MOST_ADVANTAGE, (reward - baseline) / TAU))


def beta_at(episode: int, episodes: int) -> float:
    """Weight of the entropy: from 0.40 to 0.04, linearly over the first 40 % of the episodes.

    Args:
        episode: counted from 0.
        episodes: of the whole search.
    """
    first, last = BETA
    return first + (last - first) * min(1.0, episode / (EXPLORING * episodes))


def loss_of(episode: Episode, gain: float, beta: float) -> Tensor:
    """-sum(log pi) * gain - beta * H."""
    return -episode.log_prob * gain - beta * episode.entropy


def learn(policy: Controller, adam: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step, with the norm of the whole gradient clipped at 1."""
    adam.zero_grad()
    loss.backward()
    gradients = [weight.grad for weight in policy if weight.grad is not None]
    norm = float(torch.stack([g.norm() for g in gradients]).norm())
    if norm > CLIP:
        for gradient in gradients:
            gradient.mul_(CLIP / norm)
    adam.step()
