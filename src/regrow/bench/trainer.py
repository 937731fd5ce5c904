"""The training loop of the command line's tasks: deterministic, and resumable after any step."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow.bench.data import TensorPair
from regrow.bench.job import Job, Trained, learning_rate, settled
from regrow.bench.state import StateFile
from regrow.bench.tasks import Task, Training
from regrow.core.errors import RegrowError
from regrow.core.rng import generator, seed_of
from regrow.engine.attach import Pruning, attach
from regrow.engine.gather import clone_state

Notify = Callable[[dict[str, Any]], None]
Batch = tuple[Tensor, Tensor]


class Trainer:
    """Trains arms of one task; everything random comes from (seed, phase, epoch, batch).

    Lightning Fabric brings device, precision and ranks and leaves the loop to us, which exact
    resumption needs.
    """

    def __init__(
        self,
        fabric: Fabric,
        task: Task,
        training: Training,
        make_model: Callable[[], nn.Module],
        train: Any,
        validation: Any,
        seed: int,
        notify: Notify,
        checkpoint_seconds: float = 20.0,
    ) -> None:
        self._fabric, self._task, self._training = fabric, task, training
        self._make_model, self._train, self._validation = make_model, train, validation
        self._seed, self._notify = seed, notify
        self._checkpoint_seconds = checkpoint_seconds

    def run(self, job: Job, checkpoint: StateFile) -> Trained:
        """Train an arm, going on from its checkpoint file if there is one.

        Raises:
            RegrowError: the checkpoint is damaged or of another run, or the loss is not finite.
        """
        return _Run(self, job, checkpoint).go()

    def accuracy(self, model: nn.Module, data: TensorPair) -> float:
        """Fraction of right answers, in evaluation mode."""
        correct = torch.zeros((), dtype=torch.int64, device=self._fabric.device)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        with torch.no_grad():
            # Every rank makes as many forward passes: each of them exchanges buffers.
            for part in torch.arange(len(data)).split(512 * self._fabric.world_size):
                part = self.share(part)
                images, labels = self._to_device(data, part)
                with self._fabric.autocast():
                    correct += (model(images).argmax(1) == labels).sum()
        for module, mode in modes:
            module.training = mode
        total = self._fabric.all_reduce(correct, reduce_op="sum")
        assert isinstance(total, Tensor)
        return int(total) / len(data)

    def batches(self, *key: object) -> list[Tensor]:
        """Positions of an epoch's batches, over all ranks, in an order drawn from a key."""
        order = torch.randperm(len(self._train), generator=generator(self._seed, *key))
        batches = list(order.split(self._training.batch_size))
        # Batch norm cannot learn from a single sample.
        short = len(batches) > 1 and len(batches[-1]) < 2 * self._fabric.world_size
        return batches[:-1] if short else batches

    def share(self, batch: Tensor) -> Tensor:
        """This rank's part of a batch."""
        return batch.tensor_split(self._fabric.world_size)[self._fabric.global_rank]

    def _to_device(self, data: TensorPair, indices: Tensor) -> Batch:
        images = data.images[indices].to(self._fabric.device, non_blocking=True)
        if self._training.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, data.labels[indices].to(self._fabric.device, non_blocking=True)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The training loss; also what evidence is collected through."""
        outputs = model(batch[0])
        if self._task.loss is not None:
            return self._task.loss(outputs, batch[1])
        return cross_entropy(outputs, batch[1], label_smoothing=self._training.label_smoothing)


class _Run:
    """One arm on its way: the live objects that a checkpoint captures."""

    def __init__(self, trainer: Trainer, job: Job, checkpoint: StateFile) -> None:
        self.trainer, self.job, self.checkpoint = trainer, job, checkpoint
        # Arms that start from one dense network see the same data in the same order.
        self.phase = "dense" if job.program is None else "fine_tune"
        self.done = Trained()
        self.epoch, self.batch = 0, 0
        self.loss_sum = 0.0
        self.saved_at = time.monotonic()

    def go(self) -> Trained:
        saved = self.checkpoint.read()
        model = self.trainer._make_model()
        if self.job.start is not None:
            model.load_state_dict(self.job.start)
        if self.trainer._training.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = self._optimizer(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped, wrapped_optimizer = self.trainer._fabric.setup(model, optimizer)
        self.model, self.optimizer, self.wrapped = model, optimizer, wrapped
        if saved:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
        self.pruning = self._attach(saved)
        if saved:
            self.epoch, self.batch = saved["epoch"], saved["batch"]
            self.loss_sum = saved["loss_sum"]
            self.done = Trained(**saved["done"])
        length = self.job.epochs
        self.trainer._notify(
            {"kind": "arm", "arm": self.job.arm, "epochs": length, "epoch": self.epoch}
        )
        while self.epoch < length and not self._stopped():
            self._one_epoch(wrapped_optimizer)
        if self.pruning is not None:
            self.pruning.finalize()
            self.done.events = list(self.pruning.events)
        if not self.done.state:
            # Driven by a signal: the best weights since the last cut have just been restored.
            self._choose(self.trainer.accuracy(self.wrapped, self.trainer._validation))
        return self.done

    def _attach(self, saved: dict[str, Any] | None) -> Pruning | None:
        if self.job.program is None:
            return None
        return attach(
            self.model,
            self.optimizer,
            self.job.program,
            loss_fn=self.trainer.loss,
            data=_Evidence(self.trainer),
            batches=self.trainer._training.evidence_batches,
            evaluate=lambda model: self.trainer.accuracy(self.wrapped, self.trainer._validation),
            resume=saved and saved["pruning"],
        )

    def _optimizer(self, model: nn.Module) -> torch.optim.SGD:
        training = self.trainer._training
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

    def _one_epoch(self, optimizer: Any) -> None:
        fabric, seed = self.trainer._fabric, self.trainer._seed
        began = time.monotonic()
        batches = self.trainer.batches(self.phase, "order", self.epoch)
        self.wrapped.train()
        while self.batch < len(batches):
            rate = learning_rate(
                self.epoch + self.batch / len(batches), self.job.cycles, self.job.lr
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            images, labels = self.trainer._to_device(
                self.trainer._train, self.trainer.share(batches[self.batch])
            )
            key = (seed, self.phase, self.epoch, self.batch, fabric.global_rank)
            if self.trainer._task.augment is not None:
                images = self.trainer._task.augment(images, generator("augment", *key))
            # Dropout draws from PyTorch's own stream: it starts anew at every step, so that there
            # is nothing to save, on any device and rank.
            torch.manual_seed(seed_of("step", *key))
            loss = self.trainer.loss(self.wrapped, (images, labels))
            fabric.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            self.loss_sum += float(loss.detach())
            self.batch += 1
            self.done.steps += 1
            if self.batch < len(batches):
                began = self._maybe_save(began)
        if not math.isfinite(self.loss_sum):
            raise RegrowError(
                f"the training loss of arm {self.job.arm!r} became {self.loss_sum} in epoch "
                f"{self.epoch + 1}; lower training.lr or training.fine_tune_lr."
            )
        self._close_epoch(len(batches), began)

    def _close_epoch(self, batches: int, began: float) -> None:
        accuracy = self.trainer.accuracy(self.wrapped, self.trainer._validation)
        pruning = self.pruning
        entry = {
            "epoch": self.epoch + 1,
            "phase": self.phase if pruning is None else f"stage {pruning.stage + 1}",
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": self.loss_sum / batches,
            "validation_accuracy": accuracy,
            "sparsity": 0.0 if pruning is None else pruning.sparsity,
        }
        if self._eligible(batches):
            self._choose(accuracy)
        if pruning is not None:
            pruning.epoch_end(val_accuracy=accuracy)
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        self.done.epochs = self.epoch
        self.done.history.append(entry)
        self.done.seconds += time.monotonic() - began
        self.trainer._notify({"kind": "epoch", "arm": self.job.arm, **entry})
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

    def _stopped(self) -> bool:
        # A program without fixed length ends by its signal, any other by its epochs.
        program = self.job.program
        return bool(
            self.pruning is not None
            and program is not None
            and program.epochs is None
            and self.pruning.done
        )

    def _maybe_save(self, began: float) -> float:
        now = time.monotonic()
        if now - self.saved_at < self.trainer._checkpoint_seconds:
            return began
        if self.batch:
            self.done.seconds += now - began
        if self.trainer._fabric.is_global_zero:
            self.checkpoint.write(self._capture())
        self.saved_at = time.monotonic()
        return self.saved_at

    def _capture(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruning": self.pruning.state_dict() if self.pruning else None,
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "done": vars(self.done),
        }


class _Evidence:
    """Training batches without augmentation, in an order of their own; the same at every event."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __iter__(self) -> Iterator[Batch]:
        trainer = self._trainer
        for batch in trainer.batches("evidence"):
            yield trainer._to_device(trainer._train, trainer.share(batch))
