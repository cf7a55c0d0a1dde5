"""Before Snakemake is started again on a cluster after it was killed: its jobs live on.

    python -m viny.operations.settle             # wait for them, their results count
    python -m viny.operations.settle --cancel    # stop them, they save their state

Not needed for right results: a run that is started twice waits for itself. But the second job waits in an allocation.
"""

import argparse
import getpass
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from viny import console
from viny.errors import VinyError, command


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(), metavar="DIR", help="where Snakemake worked")
    parser.add_argument("--cancel", action="store_true", help="cancel the jobs instead of waiting for them")
    args = parser.parse_args(argv)
    settle(args.directory, args.cancel)
    console.say("no job of this folder is left; now: snakemake --unlock, then the same command as before")
    return 0


def settle(directory: Path, cancel: bool, every: float = 5.0) -> None:
    """Return when SLURM has no job of this user that was submitted from `directory`.

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


if __name__ == "__main__":
    sys.exit(main())
