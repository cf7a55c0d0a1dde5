"""One update of a model: loss, gradient, optimizer. On a GPU it is recorded once and then launched as a whole.

A step of ViNy is hundreds of small operations. Launched one by one they keep the host busy and can leave a GPU waiting;
as a CUDA graph all of them are one launch.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from viny import console
from viny.training.device import autocast

Batch = dict[str, Tensor]
Loss = Callable[[Batch], Tensor]
# Records what a function launches: gives a function that launches the same again, and the recorded function's result,
# which every launch overwrites.
Recorder = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]

# Steps of a size that come before it is recorded: libraries load kernels and the optimizer makes its state in the
# first. They are ordinary steps of the run.
_BEFORE_RECORDING = 3


def cuda_graph(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record what `work` launches on the current stream, which must not be the default one, as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        result = work()
    return graph.replay, result


@dataclass(frozen=True)
class Execution:
    """How updates are computed; the mathematics are the same, up to rounding.

    Attributes:
        device: where.
        precision: `fp32`, or `bf16` for autocast; parameters stay float32.
        compiled: compile the loss, which pays in long runs only.
        recorder: records steps on the device; None to launch kernel by kernel.
    """

    device: torch.device
    precision: str = "fp32"
    compiled: bool = False
    recorder: Recorder | None = None

    @classmethod
    def from_settings(cls, device: torch.device, precision: str, compute: dict) -> "Execution":
        """As the section `compute` says: steps are recorded on CUDA, if `cuda_graphs` allows it."""
        recorder = cuda_graph if compute["cuda_graphs"] and device.type == "cuda" else None
        return cls(device, precision, compute["compile"], recorder)

    def update(self, loss: Loss, optimizer: torch.optim.Optimizer) -> "Update | RecordedUpdate":
        """The function that makes one update of what `optimizer` holds."""
        update = Update(torch.compile(loss) if self.compiled else loss, optimizer, self)
        return RecordedUpdate(update, self.recorder) if self.recorder else update


class Update:
    """Computes loss and gradient of a batch and lets the optimizer make a step."""

    def __init__(self, loss: Loss, optimizer: torch.optim.Optimizer, execution: Execution):
        self.loss, self.optimizer, self.execution = loss, optimizer, execution

    def __call__(self, batch: Batch, learning_rate: float) -> Tensor:
        """Make a step; returns the loss before it, a scalar that the next call may overwrite."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        return self.compute(batch)

    def compute(self, batch: Batch) -> Tensor:
        """A step with the learning rate that the optimizer has."""
        with autocast(self.execution.device, self.execution.precision):
            loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class RecordedUpdate:
    """The same, recorded for each size of batch after a few steps and replayed from then on.

    A size that cannot be recorded is computed step by step, with a warning.
    """

    def __init__(self, update: Update, recorder: Recorder):
        self._update, self._recorder = update, recorder
        self._steps: Counter[int] = Counter()
        self._recorded: dict[int, _Recording | None] = {}
        # A number would be recorded as it is; this is read at every step.
        self._learning_rate = torch.zeros((), device=update.execution.device)
        for group in update.optimizer.param_groups:
            group["lr"], group["capturable"] = self._learning_rate, True

    def __call__(self, batch: Batch, learning_rate: float) -> Tensor:
        """Make a step; returns the loss before it, a scalar that the next call may overwrite."""
        self._learning_rate.fill_(learning_rate)
        size = len(next(iter(batch.values())))
        if self._steps[size] < _BEFORE_RECORDING:
            self._steps[size] += 1
        elif size not in self._recorded:
            self._recorded[size] = self._record(batch, size)
        recording = self._recorded.get(size)
        return recording.replay(batch) if recording else self._update.compute(batch)

    def _record(self, batch: Batch, size: int) -> "_Recording | None":
        try:
            return _Recording(self._update, batch, self._recorder)
        except RuntimeError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            console.say(
                f"warning: steps of {size} images cannot be recorded ({reason}); every kernel is launched by itself, "
                "which is slower and changes no result (with compute.cuda_graphs: false none is recorded)"
            )
            return None


class _Recording:
    """A recorded step, and the place where it reads its batch."""

    def __init__(self, update: Update, batch: Batch, recorder: Recorder):
        self._batch = {name: values.clone() for name, values in batch.items()}
        self._launch, self._loss = recorder(lambda: update.compute(self._batch))

    def replay(self, batch: Batch) -> Tensor:
        """The recorded step, on another batch of the same shapes."""
        for name, values in batch.items():
            self._batch[name].copy_(values)
        self._launch()
        return self._loss
