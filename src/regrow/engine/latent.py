"""Weights that are trained, beside the weights that the network uses in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.core.errors import RegrowError
from regrow.core.protocols import Reparam


class Latent:
    """What a reparametrisation keeps between steps.

    The network's parameters hold the weights in use, so that its class, its keys and every
    evaluation are as they are. Around a step of the user's optimiser they hold the trained ones,
    which the step updates; the numbers of each layer are learned by an AdamW of their own, from the
    same gradients, after any clipping, unscaling and averaging over ranks.
    """

    def __init__(self, how: Reparam, weights: Mapping[str, nn.Parameter]) -> None:
        self._how, self._weights = how, weights
        self.trained = {name: weight.detach().clone() for name, weight in weights.items()}
        self._spans = {name: how.span(trained.float()) for name, trained in self.trained.items()}
        self._numbers = {
            name: {
                number.name: torch.full((), number.start, device=weight.device)
                for number in how.numbers
            }
            for name, weight in weights.items()
        }
        self._optimizer = torch.optim.AdamW(
            {
                "params": [numbers[number.name] for numbers in self._numbers.values()],
                "lr": number.lr,
                "weight_decay": number.decay,
            }
            for number in how.numbers
        )

    @torch.no_grad()
    def use(self) -> None:
        """Write the weights that are used into the network."""
        for name, weight in self._weights.items():
            weight.copy_(self._used(name))

    @torch.no_grad()
    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradients of the numbers; write the trained weights into the network."""
        # An optimiser that unscales by itself meets gradients that are scaled still.
        scale = getattr(optimizer, "grad_scale", None)
        for name, weight in self._weights.items():
            grad, numbers = weight.grad, self._numbers[name]
            if grad is not None:
                grad = grad.float() if scale is None else grad.float() / scale
                span = self._spans[name]
                found = self._how.gradients(self.trained[name].float(), span, numbers, grad)
                for key, value in found.items():
                    numbers[key].grad = value
            weight.copy_(self.trained[name])

    @torch.no_grad()
    def after_step(self, share: float) -> None:
        """Learn the numbers, keep the weights as trained, and use what they make.

        Args:
            share: of the stage that has passed; learning rates fall with it along a cosine.
        """
        grads = [n.grad for group in self._optimizer.param_groups for n in group["params"]]
        # An overflow of a scaled loss: optimisers that unscale by themselves skip the step.
        if all(bool(torch.isfinite(grad)) for grad in grads if grad is not None):
            for group, number in zip(self._optimizer.param_groups, self._how.numbers, strict=True):
                group["lr"] = number.lr * 0.5 * (1 + math.cos(math.pi * share))
            self._optimizer.step()
        self._optimizer.zero_grad()
        for number in self._how.numbers:
            for numbers in self._numbers.values():
                numbers[number.name].clamp_(min=number.least)
        for name, weight in self._weights.items():
            self.trained[name].copy_(weight)
            self._spans[name] = self._how.span(self.trained[name].float())
        self.use()

    def alive(self) -> dict[str, Tensor]:
        """Keep masks of the weights that are used and not zero."""
        return {name: weight.detach() != 0 for name, weight in self._weights.items()}

    def told(self) -> dict[str, dict[str, Any]]:
        """Plain data by kind and weight, such as the bits of each."""
        found: dict[str, dict[str, Any]] = {}
        for name, numbers in self._numbers.items():
            for key, value in self._how.told(numbers).items():
                found.setdefault(key, {})[name] = value
        return found

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data only."""
        return {
            "trained": dict(self.trained),
            "numbers": {name: dict(numbers) for name, numbers in self._numbers.items()},
            "optimizer": self._optimizer.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state, for a network that holds the weights it uses.

        Raises:
            RegrowError: the state is of another network, or the network's weights are others.
        """
        if state["trained"].keys() != self.trained.keys():
            raise RegrowError("the checkpoint trains other weights than the model has.")
        for name, trained in self.trained.items():
            saved = state["trained"][name]
            if saved.shape != trained.shape:
                raise RegrowError(
                    f"the checkpoint trains {name} of shape {tuple(saved.shape)}, the model has "
                    f"{tuple(trained.shape)}."
                )
            trained.copy_(saved)
            self._spans[name] = self._how.span(trained.float())
            for key, number in self._numbers[name].items():
                number.copy_(state["numbers"][name][key])
            if not torch.equal(self._used(name), self._weights[name]):
                raise RegrowError(
                    f"{name} does not hold what the checkpoint makes of its trained weights; load "
                    "the model's and the optimiser's own states before attach(resume=...)."
                )
        self._optimizer.load_state_dict(state["optimizer"])

    def _used(self, name: str) -> Tensor:
        trained, span = self.trained[name], self._spans[name]
        return self._how.used(trained.float(), span, self._numbers[name]).to(trained.dtype)
