"""How many jobs at once, and how many threads each: as many fine-tuning runs of ViNy as this machine has cores."""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Group, Options, command_seconds, environment, in_turns
from benchmarks.startup import SMALL, make_store

LABELS, TESTED, PIXELS, STEPS = 64, 32, 128, 4


def run(options: Options) -> list[Group]:
    """All runs one after another or all at once, with one thread or as many as there are cores."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--images {LABELS} --test-images {TESTED} --seed 1 --steps {STEPS} --milestones none"
        manifest = make_store(Path(folder), LABELS + TESTED, 32 if options.quick else PIXELS)
        numbers = itertools.count()

        def commands(threads: int) -> list[list[str]]:
            """A command for each run, with results of its own."""
            command = [sys.executable, "-m", "viny.stages.warm", "finetune", "--store", str(manifest), *flags.split()]
            command += ["--threads", str(threads), *(SMALL.split() if options.quick else [])]
            outputs = [str(Path(folder, str(next(numbers)))) for _ in range(cores)]
            return [[*command, "--output", output, "--state-dir", f"{output}.state"] for output in outputs]

        command_seconds(commands(1)[0])  # starts the server
        peer = "one after another, 1 thread"
        cases = {
            peer: lambda: sum(map(command_seconds, commands(1))),
            f"{cores} at once, 1 thread": lambda: at_once(commands(1)),
            f"one after another, {cores} threads": lambda: sum(map(command_seconds, commands(cores))),
            f"{cores} at once, {cores} threads": lambda: at_once(commands(cores)),
        }
        values = in_turns(cases, options.rounds)
    note = f"viny.stages.warm finetune, {STEPS} updates of 64 images, fp32"
    return [Group(f"{cores} runs on {cores} cores", "s", peer, values, note)]


def at_once(commands: Sequence[Sequence[str]]) -> float:
    """Wall time of commands that run side by side and must all succeed."""
    clock = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()}
    running = [subprocess.Popen(command, **quiet) for command in commands]
    codes = [process.wait() for process in running]
    seconds = time.perf_counter() - clock
    if any(codes):
        raise RuntimeError(f"{' '.join(commands[0])} and the runs beside it ended with {codes}")
    return seconds
