"""The trainer of the command line's tasks: deterministic, and resumable after any step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow.bench.compilation import compiles, eager
from regrow.bench.course import Course
from regrow.bench.data import TensorPair
from regrow.bench.job import Job, Trained
from regrow.bench.state import StateFile
from regrow.bench.tasks import Task, Training
from regrow.core.rng import generator

Notify = Callable[[dict[str, Any]], None]
Batch = tuple[Tensor, Tensor]


class Trainer:
    """Trains arms of one task; everything random comes from (seed, phase, epoch, batch).

    Lightning Fabric brings device, precision and ranks and leaves the loop to us, which exact
    resumption needs. On an accelerator the data lie beside the network, and nothing in a step
    waits for it.
    """

    def __init__(
        self,
        fabric: Fabric,
        task: Task,
        training: Training,
        make_model: Callable[[], nn.Module],
        train: TensorPair,
        validation: TensorPair,
        seed: int,
        notify: Notify,
        checkpoint_seconds: float = 20.0,
    ) -> None:
        self.fabric, self.task, self.training = fabric, task, training
        self.make_model, self.seed, self.notify = make_model, seed, notify
        self.train, self.validation = self._placed(train), self._placed(validation)
        self.checkpoint_seconds = checkpoint_seconds
        self.compiles = compiles(training.compile, fabric.device)

    def run(self, job: Job, checkpoint: StateFile, *, stop_at: float | None = None) -> Trained:
        """Train an arm, going on from its checkpoint file if there is one.

        Args:
            job: the arm.
            checkpoint: where progress is kept: model, optimiser, pruning handle and counts.
            stop_at: a time of `time.monotonic()`, in seconds; the first step that ends after it
                is the last, unless it completes the arm.

        Raises:
            Paused: `stop_at` has passed; the checkpoint holds all that was done, and running the
                job again goes on from there.
            RegrowError: the checkpoint is damaged or of another run, or the loss is not finite.
        """
        return Course(self, job, checkpoint, stop_at).go()

    def seconds_per_epoch(self, job: Job, checkpoint: StateFile) -> float:
        """What an epoch takes here, by a few steps; the checkpoint is left as it is."""
        return Course(self, job, checkpoint, None).seconds_per_epoch()

    def accuracy(self, model: nn.Module, data: TensorPair) -> float:
        """Fraction of right answers, in evaluation mode."""
        data = self._placed(data)
        correct = torch.zeros((), dtype=torch.int64, device=self.fabric.device)
        positions = torch.arange(len(data), device=data.images.device)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        with torch.no_grad(), self.eager():
            # Every rank makes as many forward passes: each of them exchanges buffers.
            for part in positions.split(512 * self.fabric.world_size):
                images, labels = self.take(data, self.share(part))
                with self.fabric.autocast():
                    correct += (model(images).argmax(1) == labels).sum()
        for module, mode in modes:
            module.training = mode
        total = self.fabric.all_reduce(correct, reduce_op="sum")
        assert isinstance(total, Tensor)
        return int(total) / len(data)

    def eager(self) -> Any:
        """A context for batches of any size and for evaluation: nothing is compiled for them."""
        return eager() if self.compiles else contextlib.nullcontext()

    def batches(self, *key: object) -> list[Tensor]:
        """Positions of an epoch's batches, over all ranks, in an order drawn from a key."""
        order = torch.randperm(len(self.train), generator=generator(self.seed, *key))
        batches = list(order.to(self.train.images.device).split(self.training.batch_size))
        # Batch norm cannot learn from a single sample.
        short = len(batches) > 1 and len(batches[-1]) < 2 * self.fabric.world_size
        return batches[:-1] if short else batches

    def share(self, batch: Tensor) -> Tensor:
        """This rank's part of a batch."""
        return batch.tensor_split(self.fabric.world_size)[self.fabric.global_rank]

    def take(self, data: TensorPair, positions: Tensor) -> Batch:
        """Samples on the device; the positions lie where the data do."""
        images = data.images[positions].to(self.fabric.device, non_blocking=True)
        if self.training.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, data.labels[positions].to(self.fabric.device, non_blocking=True)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The task's loss; also what evidence is collected through."""
        return self.task_loss(model(batch[0]), batch[1])

    def task_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The task's loss of a network's outputs."""
        if self.task.loss is not None:
            return self.task.loss(outputs, labels)
        return cross_entropy(outputs, labels, label_smoothing=self.training.label_smoothing)

    def evidence(self) -> Evidence:
        """What evidence is collected from."""
        return Evidence(self)

    def _placed(self, data: TensorPair) -> TensorPair:
        """A data set on the device, or where it is if it would fill the device's memory."""
        images, labels = data.images, data.labels
        device = self.fabric.device
        if device.type == "cuda" and not images.is_cuda:
            free, _ = torch.cuda.mem_get_info(device)
            if images.numel() * images.element_size() > free / 2:
                return TensorPair(images, labels)
        return TensorPair(images.to(device), labels.to(device))


class Evidence:
    """Training batches without augmentation, in an order of their own; the same at every event."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __iter__(self) -> Iterator[Batch]:
        trainer = self._trainer
        for batch in trainer.batches("evidence"):
            yield trainer.take(trainer.train, trainer.share(batch))
