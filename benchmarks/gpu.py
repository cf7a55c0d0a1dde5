"""Every stage on one device: `python -m benchmarks.gpu`.

Measures images per second of each stage in viny's own loop (kernel by kernel and captured; fp32 and bf16) beside the
same computation written plainly and the rate of matrix products alone, how often the host waits for the device, and
extrapolates to the paper's grid; then several trainings at once, and cells per hour with several jobs at once. Needs no
data.

    python -m benchmarks.gpu --json gpu.json
    python -m benchmarks.gpu together cells             some of the parts
    python -m benchmarks.gpu --compile                  compiled steps as well; compiling takes minutes
    python -m benchmarks.gpu --device cpu --quick       tiny sizes: shows that it runs
"""

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import together
from benchmarks.measure import Group, Options, compare, report
from benchmarks.planning import PAPER
from benchmarks.startup import VINY, Cells
from benchmarks.step import PLAIN, TINY, bounds, finetuning, flop, plain_step, simmim
from viny import tasks
from viny.commands.calibrate import random_store
from viny.commands.estimates import samples
from viny.config import load
from viny.config.sections import Compute
from viny.encoders import build
from viny.grid import Job, Study
from viny.tasks.base import Context, ImageTask
from viny.training.device import select_device, set_matmul_precision
from viny.training.loop import train
from viny.training.rng import torch_stream
from viny.training.schedule import Schedule
from viny.training.state import RunState
from viny.training.update import Execution

TESTED = 64
AT_ONCE = (1, 2, 4, 8)
PLAINLY = {"pretrain": simmim, "finetune": finetuning}


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, formatter_class=layout)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where (default: cuda)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measurements of each variant (default: 3)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round")
    parser.add_argument("--compile", action="store_true", help="measure compiled steps as well, which takes minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all measurements")
    args = parser.parse_args(argv)
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}")
    device = select_device(Compute(device=args.device))
    options = Options(1 if args.quick else max(1, args.rounds), args.quick, device, compiled=args.compile)
    report((group for part in args.parts or PARTS for group in PARTS[part](options)), options, args.json)
    return 0


def all_stages(options: Options) -> Iterator[Group]:
    """All stages, then the paper's grid."""
    small = {"model": TINY, "pretrain": {"batch_size": 8}, "data": {"store_pixels": 40}} if options.quick else {}
    jobs = {job.kind: job for job in Study(load(PAPER, small)).jobs.values()}
    stages = {}
    for kind, job in jobs.items():
        stages[kind] = stage(job, options)
        yield stages[kind]
    yield paper(stages)


def stage(job: Job, options: Options) -> Group:
    """Images per second of a job's stage, by variant."""
    device, batch, size = options.device, job.settings.batch_size, job.model.image_size
    images = batch * (64 if device.type == "cuda" else 2)
    encoder = build(job.model, torch_stream(0, "init")).to(device)
    settings: Any = job.settings.model_copy(update={"milestones": (), "learning_rate": 1e-6, "epochs": 3})
    context = Context(settings, random_store(job, images), encoder, device, 0, images, TESTED)
    task = tasks.load(job.task).Task(context)
    variants: dict[str, Callable[[], float]] = {}
    if job.kind in PLAINLY:
        plainly = PLAINLY[job.kind](job.model, torch.randn(batch, 3, size, size, device=device))[PLAIN]
        variants[PLAIN] = plain_step(plainly, batch, 0.0 if options.quick else 1.0, device)
    schedule = Schedule(images, settings)
    for name, execution in ways(options).items():
        variants[name] = partial(loop_rate, task, schedule, execution)
    variants |= bounds(flop(lambda: task.loss(_first_batch(task, batch))) / batch, ["fp32", "bf16"], options)
    note = f"batch {batch}"
    if device.type == "cuda":
        note += f"; the host waits {waits(task, schedule):.3g} times a step"
    return compare(job.kind, "images/s", variants, options, note)


def ways(options: Options) -> dict[str, Execution]:
    """Ways to compute a step, by name: each precision launched kernel by kernel, captured, and compiled as well."""
    kinds = {"": (False, False)}
    if options.device.type == "cuda":
        kinds[", captured"] = (True, False)
    if options.compiled:
        kinds |= {f"{name}, compiled": (graphs, True) for name, (graphs, _) in kinds.items()}
    return {
        precision + kind: Execution.from_settings(
            options.device, precision, Compute(cuda_graphs=graphs, compile=compiled)
        )
        for kind, (graphs, compiled) in kinds.items()
        for precision in ("fp32", "bf16")
    }


def loop_rate(task: ImageTask, schedule: Schedule, execution: Execution) -> float:
    """Images per second of the training loop, in the passes after the first, which captures and compiles."""
    set_matmul_precision("auto", execution.device)
    with tempfile.TemporaryDirectory() as folder:
        state = RunState(Path(folder), "benchmark", {}, Path(folder))
        with state.lock():
            history = train(task, schedule, execution, state, "benchmark", save_every=1e9).history
    return schedule.images * (len(history) - 1) / (history[-1]["seconds"] - history[0]["seconds"])


def waits(task: ImageTask, schedule: Schedule) -> float:
    """How often the host waits for a GPU in a step of the loop, as PyTorch reports it; once a pass is what we want."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop_rate(task, schedule, Execution(torch.device("cuda")))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught) / schedule.total_steps


def paper(stages: dict[str, Group]) -> Group:
    """Hours of training that the paper's grid takes one job after another, extrapolated from the rates."""
    shown: Counter[str] = Counter()
    for job in Study(load(PAPER)).jobs.values():
        shown[job.kind] += samples(job) or 0
    hours = {
        variant: [
            sum(shown[kind] / rate / 3600 for kind, rate in zip(stages, rates, strict=True))
            for rates in zip(*(group.values[variant] for group in stages.values()), strict=True)
        ]
        for variant in stages["finetune"].values
        if all(variant in group.values for group in stages.values())
    }
    return Group("paper's grid, training one after another", "h", hours, f"{shown.total() / 1e6:.0f} million images")


def cells(options: Options) -> Iterator[Group]:
    """Cells per hour by the number of jobs that share the device: the paper's smallest, 250 labels for 100 epochs."""
    labels, epochs, tested = (16, 1, 20) if options.quick else (250, 100, 1000)
    settings = [f"finetune.{key}" for key in (f"epochs={epochs}", f"test_images={tested}", "batch_size=64")]
    settings += [] if options.quick else [*VINY, "data.procedural.pets=1300"]
    settings += [f"compute.device={options.device.type}", f"compute.jobs_per_gpu={max(AT_ONCE)}"]
    with tempfile.TemporaryDirectory() as folder:
        runs = Cells(Path(folder), labels, *settings)
        counts = AT_ONCE[:2] if options.quick else AT_ONCE
        variants = {f"{n} at once": lambda n=n: 3600 * n / runs.seconds(n) for n in counts}
        yield compare("cells of 250 labels", "cells/h", variants, options)


def _first_batch(task: ImageTask, size: int) -> dict[str, torch.Tensor]:
    """The first batch of the first pass, on the device."""
    drawn = {name: values[:size] for name, values in task.sample_epoch(0).items()}
    rows = drawn.pop("row")
    return {name: values.to(task.device) for name, values in drawn.items()} | task.read(rows)


PARTS: dict[str, Callable[[Options], Iterator[Group]]] = {
    "stages": all_stages,
    "together": together.run,
    "cells": cells,
}

if __name__ == "__main__":
    sys.exit(main())
