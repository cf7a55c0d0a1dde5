"""Before Snakemake is started again on a cluster after it was killed: its jobs live on.

    viny settle             # wait for them, their results count
    viny settle --cancel    # stop them, they save their state

Not needed for right results: a run that is started twice waits for itself. But the second job waits in an allocation.
"""

import getpass
import subprocess
import time
from pathlib import Path

from viny import console
from viny.errors import VinyError


def settle(directory: Path, cancel: bool, every: float = 5.0) -> int:
    """Return when SLURM has no job of this user that was submitted from `directory`: exit code 0.

    Args:
        cancel: cancel the jobs first. every: seconds between two looks.

    Raises:
        VinyError: SLURM does not answer.
    """
    shown = None
    left = jobs_of(directory)
    if cancel and left:
        _slurm("scancel", *left)
    while left:
        if left != shown:
            console.say(f"{'cancelled' if cancel else 'waiting for'} {len(left)} jobs: {' '.join(left)}")
            shown = left
        time.sleep(every)
        left = jobs_of(directory)
    console.say("no job of this folder is left; now: snakemake --unlock, then the same command as before")
    return 0


def jobs_of(directory: Path) -> list[str]:
    """Numbers of this user's waiting and running jobs that Snakemake submitted from `directory`."""
    listed = _slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%A|%j|%Z")
    rows = (line.split("|", 2) for line in listed.splitlines())
    here = str(directory.resolve())
    return sorted(job for job, name, folder in rows if folder == here and name.startswith("viny"))


def _slurm(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    except FileNotFoundError as error:
        raise VinyError(f"there is no SLURM here ({words[0]} is missing); run this on a login node") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (getattr(error, "stderr", None) or "no answer").strip()
        raise VinyError(f"{words[0]} failed: {said}; try again once SLURM answers") from error
