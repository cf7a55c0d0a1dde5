"""The training loop of all stages.

What is trained comes as a `Task`; how long and how fast as a `Schedule`; where a killed run carries on as a `RunState`.
The loop is exact: whenever it is interrupted and started again, it ends with the same bits.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from viny import console
from viny.errors import VinyError
from viny.training.device import own_stream
from viny.training.schedule import Schedule
from viny.training.state import RunState
from viny.training.update import Batch, Execution

_WORTH_SAVING = 10.0  # seconds of training that the end of a run saves before it is evaluated


class Task(Protocol):
    """What a stage trains."""

    model: nn.Module

    def draw(self, epoch: int) -> Batch:
        """All random numbers of pass `epoch` (0-based), on the CPU: row i belongs to the i-th image of the pass.

        The entry `row` (images,) int64 says which row of the store that image is.
        """
        ...

    def read(self, row: Tensor) -> Batch:
        """What is stored of the images with row numbers `row` (B,), on the device."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of the images whose draws, without `row`, and stored values are in `batch`: a scalar."""
        ...


class Interrupted(Exception):
    """The process was asked to stop; the position has been saved."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass
class Position:
    """Where a run is, and what it has gathered on the way."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    images: int = 0
    loss_sum: float = 0.0
    epoch_images: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    resumes: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def train(
    task: Task,
    schedule: Schedule,
    execution: Execution,
    state: RunState,
    label: str,
    save_every: float = 60.0,
) -> Position:
    """Train `task.model` to the end of `schedule`, from the saved position if there is one.

    Args:
        execution: how updates are computed, and where.
        label: names the run in progress lines.
        save_every: seconds between two saved positions.

    Returns:
        The final position, with one history entry per epoch.

    Raises:
        Interrupted: after SIGTERM, SIGINT or SIGUSR1 (a cluster's warning), once the position is saved.
        VinyError: the loss is not finite.
    """
    model, device = task.model, execution.device
    optimizer = schedule.make_optimizer(model.parameters())
    at = _restore(state, model, optimizer)
    progress = console.Progress(label, schedule.image_passes, done=at.images)
    loss_sum = torch.tensor(at.loss_sum, dtype=torch.float64, device=device)
    clock, saved, published = time.monotonic(), time.monotonic(), -math.inf

    def tick() -> None:
        nonlocal clock
        now = time.monotonic()
        at.seconds, at.epoch_seconds = at.seconds + now - clock, at.epoch_seconds + now - clock
        clock = now

    def save() -> None:
        at.loss_sum = _finite(loss_sum, at, label)
        tick()
        state.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "position": vars(at)})

    model.train()
    update = execution.update(task.loss, optimizer)
    # While a GPU works on a pass, the CPU draws the next; without one there is nothing to be gained.
    drawing = nullcontext(task.draw) if device.type == "cpu" else drawing_ahead(task.draw, schedule.passes)
    with _stop_signals() as stopped, own_stream(device), drawing as draw:
        while at.step < schedule.total_steps or at.epoch_images:  # a state may lie between a pass and its record
            drawn = draw(at.epoch)
            rows, draws = drawn["row"], {name: values.to(device) for name, values in drawn.items() if name != "row"}
            last = min(schedule.steps_per_epoch, at.step_in_epoch + schedule.total_steps - at.step)
            while at.step_in_epoch < last:
                start = at.step_in_epoch * schedule.batch_size
                shown = slice(start, start + schedule.batch_size)
                batch = {name: values[shown] for name, values in draws.items()} | task.read(rows[shown])
                loss, size = update(batch, schedule.learning_rate_at(at.step)), len(rows[shown])
                loss_sum += loss.to(loss_sum.dtype) * size
                at.step, at.step_in_epoch = at.step + 1, at.step_in_epoch + 1
                at.images, at.epoch_images = at.images + size, at.epoch_images + size
                progress.advance(size, f"epoch {at.epoch + 1}")
                now = time.monotonic()
                if now - published > 2:
                    published = now
                    state.show(_progress(at, schedule, progress))
                if stopped or now - saved > save_every:
                    save()
                    saved = time.monotonic()
                    if stopped:
                        raise Interrupted(stopped[0])
            mean = _finite(loss_sum, at, label) / at.epoch_images
            tick()
            at.history.append(
                {
                    "epoch": at.epoch + 1,
                    "step": at.step,
                    "loss": mean,
                    "learning_rate": schedule.learning_rate_at(at.step - 1),
                    "images_per_second": at.epoch_images / max(at.epoch_seconds, 1e-9),
                    "seconds": at.seconds,
                }
            )
            at.epoch, at.step_in_epoch, at.epoch_images, at.epoch_seconds = at.epoch + 1, 0, 0, 0.0
            loss_sum.zero_()
        if time.monotonic() - saved > _WORTH_SAVING:
            save()
    progress.finish(f"loss {at.history[-1]['loss']:.4f}")
    return at


def _restore(state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    saved = state.load()
    if saved is None:
        return Position()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    at = Position(**saved["position"])
    at.resumes += 1
    console.say(f"resuming at epoch {at.epoch + 1}, step {at.step:,}")
    return at


@contextmanager
def drawing_ahead(draw: Callable[[int], Batch], passes: int) -> Iterator[Callable[[int], Batch]]:
    """`draw` for passes 0..passes-1, where asking for one begins to draw the next in another thread."""
    ahead: dict[int, Future[Batch]] = {}
    with ThreadPoolExecutor(1) as executor:

        def drawn(epoch: int) -> Batch:
            found = ahead.pop(epoch).result() if epoch in ahead else draw(epoch)
            if epoch + 1 < passes:
                ahead[epoch + 1] = executor.submit(draw, epoch + 1)
            return found

        yield drawn


def _finite(loss_sum: Tensor, at: Position, label: str) -> float:
    value = loss_sum.item()
    if not math.isfinite(value):
        raise VinyError(
            f"{label}: the loss is {value} in epoch {at.epoch + 1} (at or before step {at.step:,}); "
            "lower learning_rate, or set precision to fp32"
        )
    return value


def _progress(at: Position, schedule: Schedule, progress: console.Progress) -> dict[str, Any]:
    return {
        "epoch": at.epoch + 1,
        "epochs": schedule.passes,
        "images": at.images,
        "image_passes": schedule.image_passes,
        "images_per_second": progress.rate,
        "seconds_left": progress.remaining,
    }


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect the signals that ask a process to stop, instead of dying of them."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, lambda signum, _: received.append(signum)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
