"""Which Snakemakes drive the jobs of a folder, so that one that was killed does not lock out the next.

Every Snakemake that reads the Snakefile leaves a note with its host, process number and start time in
`.snakemake/drivers/`. Locks that none of the noted processes can hold any more are removed. A cluster on which
Snakemake would wait forever is refused.
"""

import contextlib
import json
import re
import subprocess
from dataclasses import asdict
from pathlib import Path

from viny.errors import VinyError
from viny.files import write_text
from viny.logs import log
from viny.processes import Writer

LOCKS, NOTES = Path(".snakemake/locks"), Path(".snakemake/drivers")
LOOKS = 180  # seconds between two looks of Snakemake's plugin for SLURM, at most


def register(folder: Path = Path()) -> None:
    """Note this process as a driver of `folder`, and remove the locks of drivers that are gone.

    Locks stay if a noted process lives, or if it is on another host, which cannot be asked; and if no process is noted
    that could have made them.

    Raises:
        VinyError: the folder cannot be written, which Snakemake needs even for a dry run.
    """
    me, others = Writer.current(), _noted(folder)
    gone = [path for path, writer in others.items() if writer.lives is False]
    locks = list((folder / LOCKS).glob("*"))
    try:
        if locks and gone and len(gone) == len(others):
            log.info("the Snakemake that had locked this folder is gone: its lock is removed")
            gone += locks
        for path in gone:
            path.unlink(missing_ok=True)
        write_text(folder / NOTES / f"{me.host}-{me.pid}.json", json.dumps(asdict(me)))
    except OSError as error:
        raise VinyError(
            f"{(folder / NOTES).absolute()} cannot be written ({error.strerror}); Snakemake works in a folder that can "
            "be written, such as one that --directory names"
        ) from error


def abandoned(folder: Path = Path()) -> bool:
    """Whether a Snakemake has worked in `folder`, and surely none does any more."""
    drivers = _noted(folder).values()
    return bool(drivers) and all(driver.lives is False for driver in drivers)


def check_cluster(status_command: str) -> None:
    """Raise a VinyError if SLURM forgets jobs before Snakemake, by `status_command`, sees that they have ended."""
    if status_command != "squeue":
        return
    asked = ["scontrol", "show", "config"]
    try:
        said = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise VinyError(f"SLURM does not answer ({error}); start snakemake where `{' '.join(asked)}` works") from error
    found = re.search(r"MinJobAge\s*=\s*(\d+)", said)
    age = int(found[1]) if found else 0  # 0: they are never forgotten
    if 0 < age < LOOKS:
        raise VinyError(
            f"this cluster forgets jobs {age} s after their end (MinJobAge), but Snakemake looks every {LOOKS} s: it "
            "would wait forever for jobs that ended meanwhile or were canceled. Ask the administrators for "
            "MinJobAge=300, SLURM's default; or, on a cluster with accounting, set `slurm-status-command: sacct` in "
            "the profile and cancel no job while Snakemake waits for it"
        )


def _noted(folder: Path) -> dict[Path, Writer]:
    """The drivers that have left a note, by its path."""
    noted = {}
    for path in (folder / NOTES).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            noted[path] = Writer(**json.loads(path.read_bytes()))
    return noted
