"""Processes: naming one and asking whether it still runs, what one inherits, the signals that ask it to stop."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

_TOLERANCE = 5.0  # seconds by which start times differ when the system's clock is corrected
# What a process inherits, and its fork therefore has: lines of /proc/self/status, other files there, and variables that
# libraries read while they are loaded.
_STATUS = ("Uid", "Gid", "Groups", "Umask", "SigIgn", "CapEff", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed")
_FILES = ("limits", "cgroup", "oom_score_adj")
_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "TORCH", "PYTORCH_", "CUDA_", "LD_", "PYTHON")


@dataclass(frozen=True)
class Writer:
    """A process. `started` is its start time in seconds since 1970: numbers are used again, the pair is not."""

    host: str
    pid: int
    started: float

    @classmethod
    def current(cls) -> Self:
        """This process."""
        process = psutil.Process()
        return cls(socket.gethostname(), process.pid, process.create_time())

    @property
    def lives(self) -> bool | None:
        """Whether it is running; None if it is on another host."""
        if self.host != socket.gethostname():
            return None
        try:
            return running(self.pid) and abs(psutil.Process(self.pid).create_time() - self.started) < _TOLERANCE
        except psutil.Error:
            return False


def running(pid: int) -> bool:
    """Whether a process of this host runs; one that has ended and is not yet waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def age() -> float:
    """Seconds since this process was started; none if the clock has been set back since."""
    started, now = psutil.Process().create_time(), time.time()
    if hasattr(time, "CLOCK_BOOTTIME"):  # on Linux, psutil adds the time since booting to the second of booting
        started, now = started - psutil.boot_time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, now - started)


def inherited() -> dict[str, Any]:
    """What this process has inherited; a process forked from one where these differ would behave differently."""
    status = Path("/proc/self/status").read_text().splitlines()
    return {
        "status": [line for line in status if line.startswith(_STATUS)],
        "files": [Path("/proc/self", name).read_text(errors="replace") for name in _FILES],
        "namespaces": sorted(str(path.readlink()) for path in Path("/proc/self/ns").iterdir()),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "variables": {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)},
    }


@contextmanager
def stop_signals(receive: Callable[[int], object]) -> Iterator[None]:
    """Pass SIGTERM, SIGINT and SIGUSR1 (a cluster's warning) to `receive` instead of ending the process."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, lambda signum, _: receive(signum)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
