"""The course of one arm's training: its loop, its checkpoints and the choice of its weights."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from itertools import count, islice
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regrow.bench.compilation import compiled
from regrow.bench.data import TensorPair
from regrow.bench.distill import distillation_loss
from regrow.bench.job import Job, Paused, Trained, learning_rate, settled
from regrow.bench.state import StateFile
from regrow.core.errors import RegrowError
from regrow.core.rng import generator, seed_of
from regrow.engine.attach import attach
from regrow.engine.gather import clone_state
from regrow.engine.pruning import Pruning

if TYPE_CHECKING:
    from regrow.bench.trainer import Trainer

_REHEARSED_ON = 1_000  # validation samples; a rehearsal is a glance


class Course:
    """One arm on its way: the live objects that a checkpoint captures."""

    def __init__(
        self, trainer: Trainer, job: Job, checkpoint: StateFile, stop_at: float | None
    ) -> None:
        self.trainer, self.job, self.checkpoint = trainer, job, checkpoint
        self.stop_at = math.inf if stop_at is None else stop_at
        # Arms that start from one dense network see the same data in the same order, and those
        # that start from initial weights see them as the dense network does.
        self.phase = "dense" if job.program is None or job.start is None else "fine_tune"
        self.done = Trained()
        self.epoch, self.batch = 0, 0
        self.ahead = 0.0  # the time of the next step, in epochs
        self.loss_sum = self._on_device(0.0)
        self.saved_at = time.monotonic()

    def go(self) -> Trained:
        saved = self.checkpoint.read()
        self._set_up()
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.epoch, self.batch = saved["epoch"], saved["batch"]
            self.loss_sum = self._on_device(saved["loss_sum"])
            self.done = Trained(**saved["done"])
        began = time.monotonic()
        self.pruning = self._attach(saved)
        if not saved:  # events of the start, with their rehearsals
            self.done.seconds += time.monotonic() - began
        length = self.job.epochs
        self.trainer.notify(
            {"kind": "arm", "arm": self.job.arm, "epochs": length, "epoch": self.epoch}
        )
        while not self._over():
            self._one_epoch()
        if self.pruning is not None:
            self.pruning.finalize()
            self.done.events = list(self.pruning.events)
        if not self.done.state:
            # Driven by a signal: the best weights since the last cut have just been restored.
            self._choose(self.trainer.accuracy(self.wrapped, self.trainer.validation))
        return self.done

    def seconds_per_epoch(self, at_least: float = 1.0) -> float:
        """By the median of a few steps, and one look at the validation data.

        It trains the network that the job starts from, of which nothing is kept.

        Args:
            at_least: seconds of steps, of which there are three in any case.
        """
        self._set_up()
        batches = self.trainer.batches(self.phase, "order", 0)
        self.wrapped.train()
        spent: list[float] = []
        while len(spent) < len(batches) and (len(spent) < 4 or sum(spent) < at_least):
            began = time.monotonic()
            float(self._step(batches[len(spent)], 0.0, self.phase, 0, len(spent)))
            spent.append(time.monotonic() - began)
        began = time.monotonic()
        self.trainer.accuracy(self.wrapped, self.trainer.validation)
        # The first step warms up.
        return len(batches) * median(spent[1:] or spent) + time.monotonic() - began

    def _set_up(self) -> None:
        trainer = self.trainer
        self.model = self._network()
        self.optimizer = self._optimizer(self.model)
        forward = compiled(self.model) if trainer.compiles else self.model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.wrapped, self.stepper = trainer.fabric.setup(forward, self.optimizer)
        self.teacher = self._teacher()
        # Shapes are static where the forward pass is compiled; any other batch runs eagerly.
        usual = torch.arange(min(trainer.training.batch_size, len(trainer.train)))
        self.usual = len(trainer.share(usual))

    def _network(self) -> nn.Module:
        model = self.trainer.make_model()
        if self.job.start is not None:
            model.load_state_dict(self.job.start)
        if self.trainer.training.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def _teacher(self) -> Callable[[Tensor], Tensor] | None:
        """The dense network that the arm starts from, where fine-tuning follows it."""
        trainer, job = self.trainer, self.job
        if trainer.training.distillation == 0 or job.program is None or job.start is None:
            return None
        network = self._network().to(trainer.fabric.device).eval().requires_grad_(False)
        forward = compiled(network) if trainer.compiles else network

        def answer(images: Tensor) -> Tensor:
            with torch.no_grad(), trainer.fabric.autocast():
                outputs: Tensor = forward(images)
            return outputs

        return answer

    def _attach(self, saved: dict[str, Any] | None) -> Pruning | None:
        trainer, job = self.trainer, self.job
        if job.program is None:
            return None
        tried = any(need.kind == "trial" for need in job.program.needs)
        pruning = attach(
            self.model,
            self.optimizer,
            job.program,
            loss_fn=trainer.loss,
            data=trainer.evidence(),
            batches=trainer.training.evidence_batches,
            evaluate=lambda model: trainer.accuracy(self.wrapped, trainer.validation),
            resume=saved and saved["pruning"],
            rehearse=self._rehearse if tried else None,
            example=trainer.take(trainer.train, torch.arange(1))[0],
        )
        if job.hook is not None:
            job.hook(self.model, self.optimizer, pruning)
        return pruning

    def _optimizer(self, model: nn.Module) -> torch.optim.SGD:
        training = self.trainer.training
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": training.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=self.job.lr,
            momentum=training.momentum,
            nesterov=training.nesterov and training.momentum > 0,
        )

    def _one_epoch(self) -> None:
        began = time.monotonic()
        batches = self.trainer.batches(self.phase, "order", self.epoch)
        self.wrapped.train()
        while self.batch < len(batches):
            now = self.epoch + self.batch / len(batches)
            self.ahead = self.epoch + (self.batch + 1) / len(batches)
            # Added up on the device, in double precision: reading it out would wait for the step.
            self.loss_sum += self._step(
                batches[self.batch], now, self.phase, self.epoch, self.batch
            ).to(self.loss_sum.dtype)
            self.batch += 1
            self.done.steps += 1
            if self.batch < len(batches):
                began = self._maybe_save(began)
        total = float(self.loss_sum)
        if not math.isfinite(total):
            raise RegrowError(
                f"the training loss of arm {self.job.arm!r} became {total} in epoch "
                f"{self.epoch + 1}; lower training.lr or training.fine_tune_lr."
            )
        self._close_epoch(total / len(batches), len(batches), began)

    def _step(self, batch: Tensor, now: float, *key: object) -> Tensor:
        """One step of the optimiser; returns the loss, on the device.

        Args:
            batch: positions in the training data, over all ranks.
            now: in epochs, for the learning rate.
            key: of all that is random in the step.
        """
        trainer, fabric = self.trainer, self.trainer.fabric
        rate = learning_rate(now, self.job.cycles, self.job.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, labels = trainer.take(trainer.train, trainer.share(batch))
        key = (trainer.seed, *key, fabric.global_rank)
        if trainer.task.augment is not None:
            images = trainer.task.augment(images, generator("augment", *key))
        # Dropout draws from PyTorch's own stream: it starts anew at every step, so that there
        # is nothing to save, on any device and rank.
        torch.manual_seed(seed_of("step", *key))
        if len(images) == self.usual:
            loss = self._loss(images, labels)
        else:
            with trainer.eager():
                loss = self._loss(images, labels)
        fabric.backward(loss)
        self.stepper.step()
        self.stepper.zero_grad()
        return loss.detach().reshape(())

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        outputs = self.wrapped(images)
        loss = self.trainer.task_loss(outputs, labels)
        if self.teacher is None:
            return loss
        training = self.trainer.training
        softened = distillation_loss(outputs, self.teacher(images), training.temperature)
        return (1 - training.distillation) * loss + training.distillation * softened

    def _rehearse(self, _: nn.Module) -> float:
        """Fine-tune briefly, at the learning rate of the next step, and return the accuracy.

        On fewer validation samples than the epochs' ends; the handle puts everything back.
        """
        trainer, steps = self.trainer, self.trainer.training.rehearsal_steps
        key = ("rehearsal", self.done.rehearsed // steps)
        drawn = (batch for lap in count() for batch in trainer.batches(*key, lap))
        self.wrapped.train()
        # A step that is being taken has left its gradients.
        self.stepper.zero_grad()
        with torch.enable_grad():
            for number, batch in enumerate(islice(drawn, steps)):
                self._step(batch, self.ahead, *key, number)
        self.done.rehearsed += steps
        some = trainer.validation
        part = TensorPair(some.images[:_REHEARSED_ON], some.labels[:_REHEARSED_ON])
        return trainer.accuracy(self.wrapped, part)

    def _close_epoch(self, train_loss: float, batches: int, began: float) -> None:
        accuracy = self.trainer.accuracy(self.wrapped, self.trainer.validation)
        pruning = self.pruning
        entry = {
            "epoch": self.epoch + 1,
            "phase": self.phase if pruning is None else f"stage {pruning.stage + 1}",
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            "validation_accuracy": accuracy,
            "sparsity": 0.0 if pruning is None else pruning.sparsity,
        }
        if self._eligible(batches):
            self._choose(accuracy)
        if pruning is not None:
            pruning.epoch_end(val_accuracy=accuracy)
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, self._on_device(0.0)
        self.done.epochs = self.epoch
        self.done.history.append(entry)
        self.done.seconds += time.monotonic() - began
        self.trainer.notify({"kind": "epoch", "arm": self.job.arm, **entry})
        self._maybe_save(time.monotonic())

    def _eligible(self, batches: int) -> bool:
        """Whether this epoch's weights may be chosen: the final sparsity was there all through."""
        program = self.job.program
        return program is None or settled(program, self.epoch, batches)

    def _choose(self, accuracy: float) -> None:
        """Keep the weights if no earlier ones were better on validation data."""
        if accuracy < self.done.validation_accuracy:
            return
        self.done.validation_accuracy = accuracy
        self.done.state = {n: t.cpu() for n, t in clone_state(self.model).items()}
        if self.pruning is not None:
            self.done.keep = {n: m.cpu() for n, m in self.pruning.masks.items()}

    def _over(self) -> bool:
        # A program without fixed length ends by its signal, any other by its epochs.
        program = self.job.program
        stopped = (
            self.pruning is not None
            and program is not None
            and program.epochs is None
            and self.pruning.done
        )
        return self.epoch >= self.job.epochs or stopped

    def _maybe_save(self, began: float) -> float:
        now = time.monotonic()
        late = self._late(now)
        if not late and now - self.saved_at < self.trainer.checkpoint_seconds:
            return began
        if self.batch:
            self.done.seconds += now - began
        if self.trainer.fabric.is_global_zero:
            self.checkpoint.write(self._capture())
        self.saved_at = time.monotonic()
        if late:
            self.trainer.fabric.barrier()
            if self.pruning is not None:
                self.pruning.detach()
            raise Paused(
                f"arm {self.job.arm!r} was paused after {self.done.steps} steps, in epoch "
                f"{self.epoch + 1} of {self.job.epochs}; run it again to go on."
            )
        return self.saved_at

    def _late(self, now: float) -> bool:
        if self.stop_at == math.inf or self._over():
            return False
        late = now >= self.stop_at
        fabric = self.trainer.fabric
        # The clocks of several ranks may disagree; the first one's counts.
        return bool(fabric.broadcast(late)) if fabric.world_size > 1 else late

    def _on_device(self, value: float) -> Tensor:
        device = self.trainer.fabric.device
        kind = torch.float32 if device.type == "mps" else torch.float64
        return torch.tensor(value, dtype=kind, device=device)

    def _capture(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruning": self.pruning.state_dict() if self.pruning else None,
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": float(self.loss_sum),
            "done": vars(self.done),
        }
