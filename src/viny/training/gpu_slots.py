"""Which GPU of a workstation a run computes on.

Snakemake counts GPUs but does not hand them out. Every GPU has `jobs_per_gpu` slots; a slot is a file that a run keeps
locked until its process ends.
"""

import contextlib
import fcntl
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from viny.config.sections import Compute
from viny.logs import log

VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextlib.contextmanager
def one_gpu(compute: Compute) -> Iterator[None]:
    """Let this process see one GPU with a free slot only; wait while there is none.

    Must be entered before CUDA is first used. Does nothing on the CPU, and where a scheduler or the user has set
    CUDA_VISIBLE_DEVICES.
    """
    gpus = 0 if compute.device == "cpu" or VISIBLE in os.environ else torch.cuda.device_count()
    if not gpus:
        yield
        return
    gpu, slot = acquire(gpus, compute.jobs_per_gpu, Path(tempfile.gettempdir(), f"viny-gpus-{os.getuid()}"))
    os.environ[VISIBLE] = str(gpu)
    try:
        with slot:
            yield
    finally:
        del os.environ[VISIBLE]


def acquire(gpus: int, jobs_per_gpu: int, folder: Path, every: float = 1.0) -> tuple[int, IO[str]]:
    """Number of a GPU with a free slot, and the open file in `folder` that holds the slot.

    The first slots of all GPUs are taken before any second one. Looks again `every` seconds while there is none.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    waiting = False
    while True:
        for slot, gpu in itertools.product(range(jobs_per_gpu), range(gpus)):
            file = (folder / f"gpu{gpu}-{slot}").open("a")
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return gpu, file
            file.close()
        if not waiting:
            waiting = True
            log.info(
                f"all {gpus} GPUs have {jobs_per_gpu} runs (compute.jobs_per_gpu); waiting for a free slot. "
                f"To start no more runs than fit: snakemake --resources gpu={gpus * jobs_per_gpu}"
            )
        time.sleep(every)
