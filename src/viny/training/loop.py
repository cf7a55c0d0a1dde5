"""The training loop of all stages. Whenever it is interrupted and started again, it ends with the same bits."""

import math
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from viny.errors import FinalError
from viny.logs import Progress, log
from viny.processes import stop_signals
from viny.training.device import own_stream
from viny.training.schedule import Schedule
from viny.training.state import RunState
from viny.training.update import Batch, Execution, Update

_WORTH_SAVING = 10.0  # seconds of training that are saved before the model is evaluated
_SHOWN_EVERY = 2.0  # seconds between two published positions


class Task(Protocol):
    """What is trained: `model`, on the device."""

    model: nn.Module

    def sample_epoch(self, epoch: int) -> Batch:
        """All random numbers of pass `epoch` (0-based), on the CPU: row i belongs to the i-th image of the pass.

        The entry `row` (images,) int64 says which row of the store that image is.
        """
        ...

    def read(self, rows: Tensor) -> Batch:
        """What is stored of the images with row numbers `rows` (B,), on the device."""
        ...

    def prefetch(self, rows: Tensor) -> None:
        """Prepare to read the images with row numbers `rows` (B,) next, without waiting for them."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of the images whose random numbers, without `row`, and stored values are in `batch`: a scalar."""
        ...


class Interrupted(Exception):
    """The process was asked to stop by the signal `signum`; the position has been saved."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass
class Position:
    """Where a run is, and what it has gathered on the way."""

    step: int = 0  # updates made
    samples: int = 0  # images shown
    loss_sum: float = 0.0  # over the images shown in this pass
    seconds: float = 0.0
    resumes: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry per finished pass


def train(
    task: Task, schedule: Schedule, execution: Execution, state: RunState, label: str, save_every: float = 60.0
) -> Position:
    """Train `task.model` to the end of `schedule`, from the saved position if there is one.

    Args:
        execution: how updates are computed, and where.
        label: names the run in progress lines.
        save_every: seconds between two saved positions.

    Returns:
        The final position.

    Raises:
        Interrupted: after SIGTERM, SIGINT or SIGUSR1 (a cluster's warning), once the position is saved.
        FinalError: the loss is not finite.
    """
    model, device, batch_size = task.model, execution.device, schedule.settings.batch_size
    optimizer = schedule.make_optimizer(model.parameters())
    at = _restored(state, model, optimizer)
    update = Update(task.loss, optimizer, execution)
    progress = Progress(label, schedule.samples_seen, done=at.samples)
    loss_sum = torch.tensor(at.loss_sum, dtype=torch.float64, device=device)
    saved, shown = time.monotonic(), -math.inf
    began = saved - at.seconds
    stopped: list[int] = []

    def save() -> None:
        at.loss_sum, at.seconds = _finite(loss_sum, at, label), time.monotonic() - began
        state.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "position": vars(at)})

    model.train()
    with stop_signals(stopped.append), own_stream(device):
        for epoch in range(len(at.history), schedule.passes):
            sampled, first = task.sample_epoch(epoch), epoch * schedule.steps_per_epoch
            rows = sampled.pop("row")
            numbers = {name: values.to(device) for name, values in sampled.items()}
            # No step is left if the position was saved after the last one of a pass.
            for step in range(at.step, min(first + schedule.steps_per_epoch, schedule.total_steps)):
                start = (step - first) * batch_size
                part = slice(start, start + batch_size)
                batch = {name: values[part] for name, values in numbers.items()} | task.read(rows[part])
                task.prefetch(rows[part.stop : part.stop + batch_size])
                loss, size = update(batch, schedule.learning_rate_at(step)), len(rows[part])
                loss_sum += loss.to(loss_sum.dtype) * size
                at.step, at.samples = step + 1, at.samples + size
                progress.advance(size, f"epoch {epoch + 1}")
                now = time.monotonic()
                if now - shown > _SHOWN_EVERY:
                    shown = now
                    state.show(
                        {
                            "epoch": epoch + 1,
                            "epochs": schedule.passes,
                            "samples_seen": at.samples,
                            "samples": schedule.samples_seen,
                            "images_per_second": progress.rate,
                            "seconds_left": progress.remaining,
                        }
                    )
                if stopped or now - saved > save_every:
                    save()
                    saved = time.monotonic()
                    if stopped:
                        raise Interrupted(stopped[0])
            count, before = at.samples - epoch * schedule.images, at.history[-1]["seconds"] if at.history else 0.0
            mean, at.seconds = _finite(loss_sum, at, label) / count, time.monotonic() - began
            at.history.append(
                {
                    "epoch": epoch + 1,
                    "step": at.step,
                    "loss": mean,
                    "learning_rate": schedule.learning_rate_at(at.step - 1),
                    "images_per_second": count / max(at.seconds - before, 1e-9),
                    "seconds": at.seconds,
                }
            )
            loss_sum.zero_()
        if time.monotonic() - saved > _WORTH_SAVING:
            save()
    progress.finish(f"loss {at.history[-1]['loss']:.4f}")
    return at


def _restored(state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    saved = state.load()
    if saved is None:
        return Position()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    at = Position(**saved["position"])
    at.resumes += 1
    log.info(f"resuming at epoch {len(at.history) + 1}, step {at.step:,}")
    return at


def _finite(loss_sum: Tensor, at: Position, label: str) -> float:
    value = loss_sum.item()
    if not math.isfinite(value):
        raise FinalError(
            f"{label}: the loss is {value} in epoch {len(at.history) + 1} (at or before step {at.step:,}); "
            "lower learning_rate, or set precision to fp32"
        )
    return value
