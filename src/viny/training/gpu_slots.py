"""Which GPU of a workstation a run computes on, agreed with all other runs on the machine.

Snakemake counts GPUs but does not hand them out. Every GPU has `jobs_per_gpu` slots; a slot is a file whose lock the
run holds until its process ends, however it ends. Where somebody else has decided (a cluster's scheduler, or the
user, by CUDA_VISIBLE_DEVICES) there is nothing to do.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from viny import console
from viny.errors import VinyError

VISIBLE = "CUDA_VISIBLE_DEVICES"

_held: list["Slot"] = []  # a lock lasts as long as its open file


@dataclass(frozen=True)
class Slot:
    """A place on a GPU that this process holds.

    Attributes:
        gpu: number of the GPU. place: number of the place on it. file: open file with the lock.
    """

    gpu: int
    place: int
    file: IO[str]

    def release(self) -> None:
        """Give the place back before the process ends."""
        self.file.close()


def take_gpu(
    device: str, jobs_per_gpu: int, count: Callable[[], int] | None = None, folder: Path | None = None
) -> None:
    """Let this process see one GPU only, the one with most free places; wait while there is none.

    Must be called before CUDA is used for the first time. Does nothing if `device` is `cpu`, if the machine has no
    GPU or if CUDA_VISIBLE_DEVICES is set.

    Args:
        device: `compute.device`. jobs_per_gpu: runs that share one GPU.
        count: number of GPUs (default: torch's). folder: of the slots (default: one per machine and user).
    """
    if device == "cpu" or VISIBLE in os.environ:
        return
    gpus = (count or _count)()
    if not gpus:
        return
    slot = acquire(gpus, jobs_per_gpu, folder or default_folder())
    os.environ[VISIBLE] = str(slot.gpu)
    _held.append(slot)


def acquire(gpus: int, jobs_per_gpu: int, folder: Path, every: float = 1.0) -> Slot:
    """A free slot on the GPU that has most of them; looks again `every` seconds while there is none.

    Raises:
        VinyError: the folder of the slots belongs to somebody else.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        selection = (folder / "selection").open("a")
    except PermissionError as error:
        raise VinyError(f"cannot use {folder} to share the GPUs of this machine; set {VISIBLE} yourself") from error
    waiting = False
    with selection:
        while True:
            fcntl.flock(selection, fcntl.LOCK_EX)  # one run at a time looks for a slot
            try:
                free = [slot for gpu in range(gpus) if (slot := _free_places(gpu, jobs_per_gpu, folder))]
                if free:
                    best = max(free, key=len)
                    for slot in (slot for slots in free for slot in slots if slot is not best[0]):
                        slot.release()
                    return best[0]
            finally:
                fcntl.flock(selection, fcntl.LOCK_UN)
            if not waiting:
                waiting = True
                console.say(
                    f"all {gpus} GPUs have {jobs_per_gpu} runs (compute.jobs_per_gpu); waiting for a free place. "
                    f"To start no more runs than fit: snakemake --resources gpu={gpus * jobs_per_gpu}"
                )
            time.sleep(every)


def default_folder() -> Path:
    """Where the slots of this machine and user are."""
    return Path(tempfile.gettempdir(), f"viny-gpus-{os.getuid()}")


def _free_places(gpu: int, places: int, folder: Path) -> list[Slot]:
    """The free places of a GPU, taken."""
    found = []
    for place in range(places):
        file = (folder / f"gpu{gpu}-{place}").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            found.append(Slot(gpu, place, file))
    return found


def _count() -> int:
    import torch

    return torch.cuda.device_count()  # asks the driver; starts no CUDA context
