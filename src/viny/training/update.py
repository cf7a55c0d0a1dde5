"""One update of a model: loss, gradient, optimizer.

A step of ViNy is hundreds of small kernels. On a GPU it can be captured as a CUDA graph and launched as a whole.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from viny.config.sections import Compute
from viny.logs import log

Batch = dict[str, Tensor]
# Captures what a function launches: gives a function that launches it again, and the result, which it overwrites.
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]

# Steps of a batch size before it is captured: in the first, libraries load kernels and the optimizer makes its state.
_BEFORE_CAPTURE = 3


def cuda_graph(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Capture what `work` launches on the current stream, which must not be the default one, as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        result = work()
    return graph.replay, result


@dataclass(frozen=True)
class Execution:
    """How updates are computed; the mathematics are the same, up to rounding."""

    device: torch.device
    precision: str = "fp32"  # or `bf16`, for matrix products in bfloat16; parameters stay float32
    compiled: bool = False  # compile the loss, which pays in long runs only
    capture: Capture | None = None  # captures steps on the device; None to launch kernel by kernel

    @classmethod
    def from_settings(cls, device: torch.device, precision: str, compute: Compute) -> Self:
        """As the section `compute` says: with `cuda_graphs`, steps on CUDA are captured."""
        capture = cuda_graph if compute.cuda_graphs and device.type == "cuda" else None
        return cls(device, precision, compute.compile, capture)


class Update:
    """Makes steps that lower `loss`, the mean loss of a batch.

    Steps are captured once for each batch size, after a few steps; a size that cannot be captured is computed kernel by
    kernel, with a warning.
    """

    def __init__(self, loss: Callable[[Batch], Tensor], optimizer: torch.optim.Optimizer, execution: Execution):
        self._loss = torch.compile(loss) if execution.compiled else loss
        self._optimizer, self._execution = optimizer, execution
        self._steps: Counter[int] = Counter()
        # By batch size: where a captured step reads its batch, what launches it, and its loss.
        self._captured: dict[int, tuple[Batch, Callable[[], None], Tensor]] = {}
        # A Python number would be captured as it is; this tensor is read at every step.
        self._learning_rate = torch.zeros((), device=execution.device)
        if execution.capture:
            for group in optimizer.param_groups:
                group["lr"], group["capturable"] = self._learning_rate, True

    def __call__(self, batch: Batch, learning_rate: float) -> Tensor:
        """Make a step; returns the loss before it, a scalar that the next call may overwrite."""
        if self._execution.capture is None:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            return self._step(batch)
        self._learning_rate.fill_(learning_rate)
        size = len(next(iter(batch.values())))
        self._steps[size] += 1
        if self._steps[size] == _BEFORE_CAPTURE + 1:
            self._try_to_capture(self._execution.capture, batch, size)
        if size not in self._captured:
            return self._step(batch)
        place, launch, loss = self._captured[size]
        for name, values in batch.items():
            place[name].copy_(values)
        launch()
        return loss

    def _step(self, batch: Batch) -> Tensor:
        device, precision = self._execution.device, self._execution.precision
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = self._loss(batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _try_to_capture(self, capture: Capture, batch: Batch, size: int) -> None:
        place = {name: values.clone() for name, values in batch.items()}
        try:
            self._captured[size] = (place, *capture(lambda: self._step(place)))
        except RuntimeError as error:
            log.warning(
                f"steps of {size} images cannot be captured ({(str(error) or repr(error)).splitlines()[0]}); "
                "kernels are launched one by one, which is slower and changes no result (compute.cuda_graphs: "
                "false captures none)"
            )
