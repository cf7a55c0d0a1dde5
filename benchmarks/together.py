"""Several pre-trainings on one device at once, which differ in their seed: images per second of all of them.

Beside one run: runs in a process each, as jobs are (under NVIDIA's multi-process service where it has been started),
runs that take turns on streams of one process, and runs stacked as one batched model.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from multiprocessing import Manager, get_context
from threading import Barrier
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from benchmarks.measure import ROOT, Group, Options, Variants, compare, rate, wait
from benchmarks.step import TINY
from viny.config import load
from viny.config.sections import Compute, Model
from viny.encoders import build
from viny.tasks.simmim import SimMIM
from viny.training.device import select_device
from viny.training.rng import torch_stream
from viny.training.schedule import Schedule
from viny.training.update import Execution, Update

RUNS, MANY = 3, 8
SMALL = "workflow/studies/photographs.yaml"
_BEFORE = 5  # updates until everything is captured
_UNSEEN = 10  # updates between two looks at the clock
_PATIENCE = 120.0  # seconds that runs wait for one that fails

Step = Callable[[], Any]


def run(options: Options) -> Iterator[Group]:
    """ViNy, and the small model of a study."""
    cases = [("tiny model", Model(**TINY), "fp32")]
    if not options.quick:
        small = load(ROOT / SMALL).model
        cases = [("ViNy", Model(), "fp32"), ("ViNy", Model(), "bf16"), ("small model", small, "fp32")]
    with Manager() as manager, ProcessPoolExecutor(MANY, get_context("spawn")) as pool:
        for name, model, precision in cases:
            runs = Runs(model, precision, options)
            variants = runs.variants() | {
                f"{count} processes": partial(runs.in_processes, count, pool, manager.Barrier(count, None, _PATIENCE))
                for count in (RUNS, *(() if options.quick else (MANY,)))
            }
            yield compare(f"pre-trainings at once, {name}, {precision}", "images/s", variants, options)


class Runs:
    """Runs on random images that lie on the device.

    Args:
        precision: `fp32` or `bf16`.
    """

    def __init__(self, model: Model, precision: str, options: Options):
        self.model, self.precision, self.options = model, precision, options
        self.batch, self.seconds = (4, 0.0) if options.quick else (64, 1.0)

    def variants(self) -> Variants:
        """The ways within one process."""
        several = [self.problem(seed) for seed in range(RUNS)]
        alone, turns = self.step(*several[0]), [self.step(*each) for each in several]
        streams = [self.stream() for _ in turns]

        def all_in_turn() -> None:
            for step, stream in zip(turns, streams, strict=True):
                with stream:
                    step()

        return {
            "one run": partial(self.rate, alone, 1),
            f"{RUNS} runs on streams": partial(self.rate, all_in_turn, RUNS),
            f"{RUNS} runs stacked": partial(self.rate, self.stacked(several), RUNS),
        }

    def rate(self, step: Step, runs: int) -> float:
        """Images per second of all runs that a step advances."""
        with self.stream():
            for _ in range(_BEFORE):
                step()
            return rate(step, runs * self.batch, self.seconds, self.options.device)

    def in_processes(self, count: int, pool: Executor, together: Barrier) -> float:
        """The same, of runs in processes of their own."""
        return sum(pool.map(self.in_this_process, range(count), [together] * count))

    def in_this_process(self, seed: int, together: Barrier) -> float:
        """Images per second of one run among others, which begin at the same time."""
        device = select_device(Compute(device=self.options.device.type))
        step = self.step(*self.problem(seed))
        with self.stream():
            for _ in range(_BEFORE):
                step()
            together.wait()
            updates, began, took = 0, time.perf_counter(), 0.0
            while not updates or took < 2 * self.seconds:
                for _ in range(_UNSEEN):
                    step()
                wait(device)
                updates, took = updates + _UNSEEN, time.perf_counter() - began
            return updates * self.batch / took

    def stream(self) -> AbstractContextManager[Any]:
        """Makes a stream of its own the current one."""
        return torch.cuda.stream(torch.cuda.Stream()) if self.options.device.type == "cuda" else nullcontext()

    def problem(self, seed: int) -> tuple[SimMIM, list[Tensor]]:
        """A model that returns its loss, and its inputs."""
        module, stream = SimMIM(build(self.model, torch_stream(seed, "init"))), torch_stream(seed, "images")
        images = torch.randn(self.batch, 3, self.model.image_size, self.model.image_size, generator=stream)
        order = torch.rand(self.batch, module.encoder.patches, generator=stream).argsort(dim=1)
        device = self.options.device
        return module.to(device), [images.to(device), order.to(device)]

    def step(self, module: SimMIM, inputs: list[Tensor]) -> Step:
        """Makes an update of one run."""
        return self._update(lambda batch: module(*batch.values()), module.parameters(), inputs)

    def stacked(self, several: Sequence[tuple[SimMIM, list[Tensor]]]) -> Step:
        """Makes an update of all runs as one model, whose weights and inputs have one dimension more."""
        weights, buffers = stack_module_state([module for module, _ in several])
        skeleton = copy.deepcopy(several[0][0]).to("meta")

        def loss(batch: dict[str, Tensor]) -> Tensor:
            def of_one(weights: Any, buffers: Any, *inputs: Tensor) -> Tensor:
                return functional_call(skeleton, (weights, buffers), inputs)

            places = (0, 0, *(1 for _ in batch))  # the first dimension of a batch is that of its images
            return torch.vmap(of_one, places)(weights, buffers, *batch.values()).sum()

        inputs = [torch.stack(each, dim=1) for each in zip(*(inputs for _, inputs in several), strict=True)]
        return self._update(loss, weights.values(), inputs)

    def _update(self, loss: Callable[[dict[str, Tensor]], Tensor], parameters: Any, inputs: list[Tensor]) -> Step:
        execution = Execution.from_settings(self.options.device, self.precision, Compute())
        update = Update(loss, Schedule(self.batch, load().pretrain).make_optimizer(parameters), execution)
        return lambda: update({str(number): each for number, each in enumerate(inputs)}, 1e-5)
