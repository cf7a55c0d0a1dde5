"""Whether somebody works on a run, found without disturbing it: from any machine that shares the results folder."""

import fcntl
import json
import math
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viny.grid import AXES, Job
from viny.study import Study

FRESH = 120.0  # seconds; a file written more recently has a living writer, where locks cannot tell

# Every process that can see such a file system sees its locks; elsewhere a lock may be known to one machine only.
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"})


@dataclass(frozen=True)
class Run:
    """What the state folder of a run shows.

    Attributes:
        live: a process works on it.
        begun: something to carry on from is there. finished: even the results, kept aside.
        progress: the last published progress (see `viny.training.state`), or empty.
        age: seconds since then.
    """

    live: bool
    begun: bool
    finished: bool
    progress: dict[str, Any]
    age: float


def runs(study: Study) -> dict[tuple, Run]:
    """The runs of a study that have a state, by `key`; of several states of one job the living or latest one."""
    found: dict[tuple, Run] = {}
    for description in study.state.glob("*/run.json"):
        run = _read_json(description)
        try:
            stage, coordinates = run["stage"], run["identity"]["coordinates"]
            place = (stage, *(coordinates[axis] for axis in AXES[stage]))
            if coordinates.get("study") != study.name:
                continue
        except (KeyError, TypeError):
            continue
        seen = look(description.parent)
        other = found.get(place)
        if other is None or (seen.live, -seen.age) > (other.live, -other.age):
            found[place] = seen
    return found


def key(job: Job) -> tuple:
    """What identifies a job within its study."""
    return (job.stage, *job.coordinates.values())


def look(folder: Path) -> Run:
    """The run in a state folder, without touching it."""
    progress = _read_json(folder / "progress.json")
    age = _age(folder / "progress.json")
    finished = (folder / "done").exists()
    live = lock_held(folder / "lock")
    if not live and not locks_tell(folder):
        live = age < FRESH or (not finished and _age(folder / "run.json") < FRESH)
    begun = any((folder / name).exists() for name in ("state.pt", "previous.pt", "progress.json"))
    return Run(live, begun, finished, {k: v for k, v in progress.items() if not _infinite(v)}, age)


def lock_held(path: Path) -> bool:
    """Whether another process holds the record lock of a file; asks the system, takes no lock itself."""
    if not sys.platform.startswith("linux"):
        return False
    query = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)  # struct flock: type, whence, start, length, process
    try:
        with path.open("rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_GETLK, query)
    except OSError:
        return False
    return struct.unpack("hhqqi", answer)[0] != fcntl.F_UNLCK


def locks_tell(folder: Path) -> bool:
    """Whether the locks of all processes that can write into `folder` are seen from here."""
    if not sys.platform.startswith("linux"):
        return False
    path, kind, longest = str(folder.resolve()), "", -1
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in mounts:
        _, point, name, *_ = line.split(" ")
        point = point.replace("\\040", " ").rstrip("/")
        if len(point) >= longest and (path == point or path.startswith(f"{point}/")):
            kind, longest = name, len(point)
    return kind in _LOCAL


def fresh(path: Path) -> bool:
    """Whether a file was written a short while ago."""
    return _age(path) < FRESH


def _age(path: Path) -> float:
    try:
        return abs(time.time() - path.stat().st_mtime)
    except OSError:
        return math.inf


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
