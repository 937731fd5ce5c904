"""The training loop of the command line's tasks: deterministic, and resumable after any step."""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow.bench.data import TensorPair
from regrow.bench.tasks import Task, Training
from regrow.core.errors import RegrowError
from regrow.core.files import write_atomic
from regrow.core.rng import generator, seed_of
from regrow.engine.attach import Pruning, attach
from regrow.engine.gather import clone_state
from regrow.engine.plan import Program

Notify = Callable[[dict[str, Any]], None]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Job:
    """One arm to train.

    Attributes:
        arm: its name in records.
        start: the initial weights, or None for the task's own initialisation.
        program: what prunes it; None trains densely.
        cycles: epochs of each learning-rate cycle; their sum is the arm's length. The same for
            all arms of a comparison.
        lr: the peak of each cycle.
    """

    arm: str
    start: dict[str, Tensor] | None
    program: Program | None
    cycles: tuple[int, ...]
    lr: float


@dataclass
class Trained:
    """What training left: the weights chosen on validation data, masks and the story.

    Attributes:
        state: the model's state dict, on the CPU.
        keep: keep masks by clean name, or None for a dense arm.
        epochs, steps: spent.
        seconds: of training and validation, over all interruptions.
        validation_accuracy: of the chosen weights.
        history: one dict per epoch.
        events: the mask events.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    keep: dict[str, Tensor] | None = None
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    validation_accuracy: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


def learning_rate(progress: float, cycles: Sequence[int], peak: float) -> float:
    """One-cycle learning rate at a time in epochs, restarted at each cycle.

    Linear from a tenth of the peak over the first fifth of a cycle, then cosine towards zero.
    """
    for length in cycles:
        if progress < length:
            break
        progress -= length
    share = min(progress / length, 1.0)
    if share < 0.2:
        return peak * (0.1 + 0.9 * share / 0.2)
    return peak * 0.5 * (1 + math.cos(math.pi * (share - 0.2) / 0.8))


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

    def run(self, job: Job, checkpoint: Path) -> Trained:
        """Train an arm, going on from its checkpoint file if there is one."""
        return _Run(self, job, checkpoint).go()

    def accuracy(self, model: nn.Module, data: TensorPair) -> float:
        """Fraction of right answers, in evaluation mode."""
        correct = torch.zeros((), dtype=torch.int64, device=self._fabric.device)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        with torch.no_grad():
            for part in _sequential(len(data), 512, self._fabric):
                images, labels = self._to_device(data, part)
                with self._fabric.autocast():
                    correct += (model(images).argmax(1) == labels).sum()
        for module, mode in modes:
            module.training = mode
        total = self._fabric.all_reduce(correct, reduce_op="sum")
        assert isinstance(total, Tensor)
        return int(total) / len(data)

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

    def __init__(self, trainer: Trainer, job: Job, checkpoint: Path) -> None:
        self.t, self.job, self.path = trainer, job, checkpoint
        # Arms that start from one dense network see the same data in the same order.
        self.phase = "dense" if job.program is None else "fine_tune"
        self.done = Trained()
        self.epoch, self.batch = 0, 0
        self.loss_sum = 0.0
        self.saved_at = time.monotonic()

    def go(self) -> Trained:
        saved = self._load()
        torch.manual_seed(seed_of(self.t._seed, self.phase))
        model = self.t._make_model()
        if self.job.start is not None:
            model.load_state_dict(self.job.start)
        if self.t._training.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = self._optimizer(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped, wrapped_optimizer = self.t._fabric.setup(model, optimizer)
        self.model, self.optimizer, self.wrapped = model, optimizer, wrapped
        if saved:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
        self.pruning = self._attach(saved)
        if saved:
            self._restore(saved)
        length = sum(self.job.cycles)
        self.t._notify({"kind": "arm", "arm": self.job.arm, "epochs": length, "epoch": self.epoch})
        while self.epoch < length and not self._stopped():
            self._one_epoch(wrapped_optimizer)
        if self.pruning is not None:
            self.pruning.finalize()
            self.done.events = list(self.pruning.events)
        if not self.done.state:
            self._choose(force=True)
        return self.done

    def _attach(self, saved: dict[str, Any]) -> Pruning | None:
        if self.job.program is None:
            return None
        return attach(
            self.model,
            self.optimizer,
            self.job.program,
            loss_fn=self.t.loss,
            data=_Evidence(self.t, self.job.arm),
            batches=self.t._training.evidence_batches,
            evaluate=lambda model: self.t.accuracy(self.wrapped, self.t._validation),
            resume=saved.get("pruning"),
        )

    def _optimizer(self, model: nn.Module) -> torch.optim.SGD:
        training = self.t._training
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
        fabric, training, data = self.t._fabric, self.t._training, self.t._train
        began = time.monotonic()
        order = torch.randperm(
            len(data), generator=generator(self.t._seed, self.phase, "order", self.epoch)
        )
        batches = order.split(training.batch_size)
        if len(batches) > 1 and len(batches[-1]) < 2 * fabric.world_size:
            batches = batches[:-1]  # Batch norm cannot learn from a single sample.
        self.wrapped.train()
        while self.batch < len(batches):
            share = batches[self.batch].chunk(fabric.world_size)[fabric.global_rank]
            rate = learning_rate(
                self.epoch + self.batch / len(batches), self.job.cycles, self.job.lr
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            images, labels = self.t._to_device(data, share)
            if self.t._task.augment is not None:
                stream = generator(
                    self.t._seed, self.phase, "augment", self.epoch, self.batch, fabric.global_rank
                )
                images = self.t._task.augment(images, stream)
            loss = self.t.loss(self.wrapped, (images, labels))
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
        accuracy = self.t.accuracy(self.wrapped, self.t._validation)
        pruning = self.pruning
        entry = {
            "epoch": self.epoch + 1,
            "phase": self.phase if pruning is None else f"stage {pruning.stage + 1}",
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": self.loss_sum / batches,
            "validation_accuracy": accuracy,
            "sparsity": 0.0 if pruning is None else pruning.sparsity,
        }
        self._choose(accuracy)
        if pruning is not None:
            pruning.epoch_end(val_accuracy=accuracy)
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        self.done.epochs = self.epoch
        self.done.history.append(entry)
        self.done.seconds += time.monotonic() - began
        self.t._notify({"kind": "epoch", "arm": self.job.arm, **entry})
        self._maybe_save(time.monotonic())

    def _choose(self, accuracy: float | None = None, *, force: bool = False) -> None:
        """Keep the weights of the best validation accuracy among epochs at the final sparsity."""
        pruning = self.pruning
        if pruning is not None and self.job.program is not None:
            last = pruning.stage == len(self.job.program.stages) - 1
            at_target = abs(pruning.sparsity - self.job.program.sparsity) < 1e-3
            signal = self.job.program.epochs is None
            if not force and (signal or not (last and at_target)):
                return  # A signal-driven stage restores its own best weights at its end.
        if accuracy is None:
            accuracy = self.t.accuracy(self.wrapped, self.t._validation)
        if accuracy < self.done.validation_accuracy:
            return
        self.done.validation_accuracy = accuracy
        self.done.state = {n: t.cpu() for n, t in clone_state(self.model).items()}
        if pruning is not None:
            self.done.keep = {n: m.cpu() for n, m in pruning.masks.items()}

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
        if now - self.saved_at < self.t._checkpoint_seconds:
            return began
        if self.batch:
            self.done.seconds += now - began
        if self.t._fabric.is_global_zero:
            write_atomic(self.path, self._capture())
        self.saved_at = time.monotonic()
        return self.saved_at

    def _capture(self) -> bytes:
        buffer = io.BytesIO()
        state = {
            "arm": self.job.arm,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruning": self.pruning.state_dict() if self.pruning else None,
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "random": torch.get_rng_state(),
            "done": vars(self.done),
        }
        torch.save(state, buffer)
        return buffer.getvalue()

    def _load(self) -> dict[str, Any]:
        return read_state(self.path) if self.path.exists() else {}

    def _restore(self, saved: dict[str, Any]) -> None:
        self.epoch, self.batch = saved["epoch"], saved["batch"]
        self.loss_sum = saved["loss_sum"]
        self.done = Trained(**saved["done"])
        torch.set_rng_state(saved["random"].cpu())


class _Evidence:
    """Training batches without augmentation, in an order of their own; the same at every event."""

    def __init__(self, trainer: Trainer, arm: str) -> None:
        self._trainer = trainer

    def __iter__(self) -> Iterator[Batch]:
        trainer = self._trainer
        fabric, data = trainer._fabric, trainer._train
        order = torch.randperm(len(data), generator=generator(trainer._seed, "evidence"))
        for part in order.split(trainer._training.batch_size):
            yield trainer._to_device(data, part.chunk(fabric.world_size)[fabric.global_rank])


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint of ours: tensors and plain data, never code.

    Raises:
        RegrowError: the file is damaged or no checkpoint.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise RegrowError(
            f"{path} is no sound checkpoint ({type(error).__name__}: {str(error)[:200]}); delete "
            "it to train this arm again from its start."
        ) from error


def _sequential(total: int, size: int, fabric: Fabric) -> Iterator[Tensor]:
    indices = torch.arange(total)[fabric.global_rank :: fabric.world_size]
    yield from indices.split(size)
