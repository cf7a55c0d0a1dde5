"""Every stage on one device, within ten minutes: `python -m benchmarks.gpu`.

Measures the largest rate of matrix products, images per second of each stage in viny's own loop (kernel by kernel,
recorded, compiled; fp32 and bf16) and of the arithmetic written plainly with a loader that reads files image by image,
how often the host waits for the device, and cells per hour with several jobs at once; extrapolates to the paper's
grid. Needs no data.

    python -m benchmarks.gpu --json gpu.json
    python -m benchmarks.gpu --device cpu --quick       tiny sizes: shows that it runs
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import images, plain
from benchmarks.measure import SCHEMA, circumstances, environment
from benchmarks.planning import PAPER
from benchmarks.step import TINY
from viny.models.encoder import PAPER_SIZES
from viny.models.simmim import mask_from_order, random_masks
from viny.operations.calibrate import make_task, random_store
from viny.operations.work import image_passes
from viny.settings import defaults
from viny.stages.finetune import Segmentation
from viny.stages.run import Request, StageTask
from viny.study import Study
from viny.training.device import device_name, select_device, set_matmul_precision
from viny.training.loop import train
from viny.training.schedule import Schedule
from viny.training.state import RunState
from viny.training.update import Execution

STAGES = {"pretrain": "pretrain", "intermediate cls_intel": "intermediate.cls_intel", "finetune": "finetune"}
AT_ONCE = (1, 2, 4, 8)
CELL_LABELS, CELL_EPOCHS = 250, 100  # the paper's smallest cell


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    args = arguments(argv)
    device = select_device(args.device, args.threads, defaults("compute")["matmul_precision"])
    if args.cell:
        cell(device, args)
        return 0
    found: dict[str, Any] = {"schema": SCHEMA, "quick": args.quick, **circumstances(), "device": device_name(device)}
    say(f"on {found['device']}")
    found["matmul_tflops"] = {name: matmul_tflops(name, device, args) for name in ("fp32", "bf16")}
    found["plain"] = plainly(device, args)
    found["cells"] = cells(args)
    found["stages"] = {}
    for kind in STAGES:
        found["stages"][kind] = stage(kind, device, args)
        keep(found, args.json)  # compiling may take long: what has been measured is not lost
    found["paper"] = paper(found)
    keep(found, args.json)
    print(markdown(found))
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where (default: cuda)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="time for each measurement (default: 2)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write everything that was measured")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.seconds = 0.05 if args.quick else args.seconds
    args.model = TINY if args.quick else PAPER_SIZES
    return args


def keep(found: dict[str, Any], path: Path | None) -> None:
    """Write what has been measured so far."""
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n")


def matmul_tflops(precision: str, device: torch.device, args: argparse.Namespace) -> float:
    """The largest rate of square matrix products, in 10^12 operations a second."""
    side = 256 if args.quick else 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / per_call(lambda: a @ b, device, args.seconds / 5) / 1e12


def stage(kind: str, device: torch.device, args: argparse.Namespace) -> dict[str, Any]:
    """Images per second of a stage in viny's loop, by variant, with shares of the matrix products' rate."""
    values = {**defaults(STAGES[kind]), "heldout_images": 64, "test_images": 64, "test_set": "fixed"}
    if args.quick:
        values["batch_size"] = 8
    count = values["batch_size"] * (64 if device.type == "cuda" else 4)
    task = make_task(kind, values, request(args), count, device)
    found: dict[str, Any] = {"flop_per_image": flop_per_image(task, values), "waits_per_step": None}
    if device.type == "cuda":
        found["waits_per_step"] = waits_per_step(task, values)
    found["images_per_second"] = {}
    for name, execution in variants(device).items():
        if execution.compiled and args.quick:
            continue
        try:
            found["images_per_second"][name] = rate(task, values, count, execution, args.seconds)
        except Exception as error:  # a machine without a compiler has the other numbers
            found["images_per_second"][name] = None
            say(f"{kind} {name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        say(f"{kind} {name}: {found['images_per_second'][name]} images/s")
    return found


def rate(task: StageTask, values: dict[str, Any], count: int, execution: Execution, seconds: float) -> float:
    """Images per second of the training loop itself, in the passes after the first, which records and compiles."""
    passes, shown, took = 2, 0, 0.0
    while took < seconds:
        schedule = Schedule.from_settings(count, {**values, "epochs": passes, "milestones": [], "learning_rate": 1e-6})
        with tempfile.TemporaryDirectory() as folder:
            state = RunState(Path(folder), "benchmark", {"passes": passes}, Path(folder))
            with state.lock():
                history = train(task, schedule, execution, state, "step", save_every=1e9).history
        shown, took = count * (passes - 1), history[-1]["seconds"] - history[0]["seconds"]
        passes = max(2 * passes, int(passes * seconds / max(took, 1e-9)) + 2) if took < seconds else passes
    return shown / took


def flop_per_image(task: StageTask, values: dict[str, Any]) -> float:
    """Operations in matrix products of one image, forward and backward, as PyTorch counts them."""
    batch = first_draws(task, values["batch_size"])
    batch |= task.read(batch.pop("row").cpu())
    with FlopCounterMode(display=False) as counter:
        task.loss(batch).backward()
    return counter.get_total_flops() / values["batch_size"]


def waits_per_step(task: StageTask, values: dict[str, Any], steps: int = 10) -> float:
    """How often the host waits for a GPU in a step, as PyTorch reports it; 0 is what we want."""
    draws = first_draws(task, values["batch_size"])
    row, optimizer = draws.pop("row").cpu(), Schedule.from_settings(64, values).make_optimizer(task.model.parameters())
    update = Execution(torch.device("cuda")).update(task.loss, optimizer)

    def step() -> None:
        update(draws | task.read(row), 1e-6)

    step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for _ in range(steps):
            step()
        torch.cuda.set_sync_debug_mode("default")
    waits = Counter(str(warning.message).splitlines()[0] for warning in caught if "synchroniz" in str(warning.message))
    return sum(waits.values()) / steps


def first_draws(task: StageTask, size: int) -> dict[str, torch.Tensor]:
    """The draws of the first batch of the first pass, on the device."""
    device = next(task.model.parameters()).device
    return {name: values[:size].to(device) for name, values in task.draw(0).items()}


def plainly(device: torch.device, args: argparse.Namespace) -> dict[str, float]:
    """Images per second of plain fp32 arithmetic, of reading files image by image, and of both in turn."""
    set_matmul_precision("highest", device)
    values, size = defaults("pretrain"), args.model["image_size"]
    model = plain.SimMIM(plain.Encoder(**args.model)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batch = images.BATCH
    order = random_masks(torch.rand(batch, (size // args.model["patch_size"]) ** 2))
    mask = mask_from_order(order, order.shape[1] // 2).to(device)

    def step(shown: torch.Tensor) -> None:
        loss = model(shown.to(device), mask[: len(shown)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    kept = torch.randn(batch, 3, size, size, device=device)
    found = {"arithmetic": batch / per_call(lambda: step(kept), device, args.seconds)}
    with tempfile.TemporaryDirectory() as folder:
        images.generate(Path(folder), 16 if args.quick else 512)
        read = partial(images.folder_batches, Path(folder), values, size)
        found["loader"] = loop_rate(read, lambda shown: None, device)
        found["both"] = loop_rate(read, step, device)
    set_matmul_precision(defaults("compute")["matmul_precision"], device)
    say("plainly: " + ", ".join(f"{name} {value:,.0f} images/s" for name, value in found.items()))
    return found


def loop_rate(read: Callable[[], Iterator[torch.Tensor]], step: Callable[[torch.Tensor], None], device) -> float:
    """Images per second of a pass over files."""
    clock, count = time.perf_counter(), 0
    for shown in read():
        step(shown)
        count += len(shown)
    wait(device)
    return count / (time.perf_counter() - clock)


def cells(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Fine-tuning and measuring whole small cells, each a process of its own: seconds and cells per hour by number."""
    found = {}
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--cell",
        "--device",
        args.device,
        "--threads",
        str(args.threads),
    ]
    for number in AT_ONCE[:2] if args.quick else AT_ONCE:
        clock = time.perf_counter()
        running = [
            subprocess.Popen(
                [*command, *(["--quick"] if args.quick else [])], stderr=subprocess.DEVNULL, env=environment()
            )
            for _ in range(number)
        ]
        if any(process.wait() for process in running):
            say(f"{number} cells at once: one failed")  # a small GPU may not hold as many
            break
        seconds = time.perf_counter() - clock
        found[str(number)] = {"seconds": seconds, "cells_per_hour": 3600 * number / seconds}
        say(f"{number} cells at once: {seconds:.1f} s, {3600 * number / seconds:,.0f} cells an hour")
    return found


def cell(device: torch.device, args: argparse.Namespace) -> None:
    """One small cell, trained and measured."""
    labels, epochs, tested = (16, 1, 16) if args.quick else (CELL_LABELS, CELL_EPOCHS, 1000)
    values = {**defaults("finetune"), "epochs": epochs, "milestones": [], "test_images": tested}
    flags = argparse.Namespace(encoder=None, attention=defaults("compute")["attention"], seeding="everything")
    asked = Request("finetune", flags, "finetune", values, args.model, {})
    store = random_store(labels + tested, args.model["image_size"])
    task = Segmentation(asked, store, labels, device, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        state = RunState(Path(folder), "benchmark", {}, Path(folder))
        with state.lock():
            execution = Execution.from_settings(device, "fp32", defaults("compute"))
            train(task, Schedule.from_settings(labels, values), execution, state, "cell")
    task.model.eval()
    task.evaluate()


def paper(found: dict[str, Any]) -> dict[str, Any]:
    """Hours of training that the paper's grid takes one job after another, extrapolated from the rates."""
    study = Study.from_config(yaml.safe_load(PAPER.read_text()))
    passes: Counter[str] = Counter()
    for job in study.jobs():
        passes[job.kind] += image_passes(study, job)
    hours = {}
    for name in found["stages"]["finetune"]["images_per_second"]:
        rates = {kind: found["stages"][kind]["images_per_second"].get(name) for kind in STAGES}
        if all(rates.values()):
            hours[name] = sum(passes[kind] / rates[kind] for kind in STAGES) / 3600
    hours["plainly"] = passes.total() / found["plain"]["both"] / 3600
    return {"image_passes": dict(passes), "hours": hours}


def request(args: argparse.Namespace) -> dict[str, Any]:
    """What `make_task` asks for."""
    return {"model": args.model, "store_pixels": 40 if args.quick else 160, "compute": defaults("compute")}


def per_call(call: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Seconds of a call, over as many as fill the time."""
    call()
    calls, took = 1, 0.0
    while took < seconds:
        wait(device)
        clock = time.perf_counter()
        for _ in range(calls):
            call()
        wait(device)
        took = time.perf_counter() - clock
        calls *= 2
    return took / (calls / 2)


def wait(device: torch.device) -> None:
    """Until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def variants(device: torch.device) -> dict[str, Execution]:
    """Ways to compute a step, by name: each precision launched kernel by kernel, recorded, and compiled as well."""
    ways = {"": (False, False), ", compiled": (False, True)}
    if device.type == "cuda":
        ways = {"": (False, False), ", recorded": (True, False), ", recorded, compiled": (True, True)}
    return {
        precision + way: Execution.from_settings(device, precision, {"cuda_graphs": graphs, "compile": compiled})
        for way, (graphs, compiled) in ways.items()
        for precision in ("fp32", "bf16")
    }


def markdown(found: dict[str, Any]) -> str:
    """All tables."""
    peak = found["matmul_tflops"]
    lines = [
        f"{found['device']}: matrix products {peak['fp32']:,.1f} TFLOP/s in fp32, {peak['bf16']:,.1f} in bf16",
        "",
        "| stage | variant | images/s | share of the matrix products' rate |",
        "|---|---|---|---|",
    ]
    for kind, measured in found["stages"].items():
        for name, speed in measured["images_per_second"].items():
            if speed:
                share = speed * measured["flop_per_image"] / 1e12 / peak[name.split(",")[0]]
                lines.append(f"| {kind} | {name} | {speed:,.0f} | {share:.1%} |")
    lines += [f"| pretrain, plainly | {name} | {speed:,.0f} | |" for name, speed in found["plain"].items()]
    lines += ["", "| cells at once | seconds | cells per hour |", "|---|---|---|"]
    lines += [f"| {n} | {c['seconds']:.1f} | {c['cells_per_hour']:,.0f} |" for n, c in found["cells"].items()]
    waits = {kind: m["waits_per_step"] for kind, m in found["stages"].items() if m["waits_per_step"] is not None}
    lines += [f"\nwaits of the host per step: {', '.join(f'{k} {w:g}' for k, w in waits.items())}"] if waits else []
    lines += ["", "| paper's grid, one job after another | hours |", "|---|---|"]
    lines += [f"| {name} | {hours:,.2f} |" for name, hours in found["paper"]["hours"].items()]
    return "\n".join(lines)


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
