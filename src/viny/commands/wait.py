"""`viny wait`: before Snakemake is started again on a cluster after it was killed, since its jobs live on.

Not needed for right results: a run that is started twice waits for itself. But the second job waits in an allocation.
"""

import argparse
import getpass
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from viny.commands.terminal import plural
from viny.errors import VinyError, command
from viny.logs import log, setup

EVERY = 5.0  # seconds between two looks
LOOKS = 180.0  # seconds between two looks of Snakemake's plugin, at most


@command
def main(argv: Sequence[str]) -> int:
    """Return when SLURM has no job of this user that was submitted from the folder: exit code 0."""
    parser = argparse.ArgumentParser(
        prog="viny wait",
        description="Wait for the cluster jobs that a killed Snakemake left behind; their results count.",
    )
    parser.add_argument("--cancel", action="store_true", help="cancel the jobs first; they save their state")
    parser.add_argument("--directory", type=Path, default=Path(), metavar="DIR", help="where Snakemake worked")
    args = parser.parse_args(argv)
    setup()
    if not args.directory.is_dir():
        raise VinyError(f"--directory {args.directory}: there is no such folder")
    shown = None
    left = jobs_of(args.directory)
    if args.cancel and left:
        _slurm("scancel", *left)
    while left:
        if left != shown:
            did = "canceled" if args.cancel else "waiting for"
            log.info("%s %s: %s", did, plural(len(left), "job"), " ".join(left))
            shown = left
        time.sleep(EVERY)
        left = jobs_of(args.directory)
    log.info("no job of this folder is left; run the same snakemake command again")
    return 0


def jobs_of(directory: Path) -> list[str]:
    """Numbers of this user's waiting and running jobs that Snakemake submitted from `directory`.

    Raises:
        VinyError: SLURM does not answer.
    """
    listed = _slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%A|%j|%Z")
    rows = [line.split("|", 2) for line in listed.splitlines() if line.count("|") >= 2]
    here = str(directory.resolve())
    return sorted(job for job, name, folder in rows if folder == here and name.startswith("viny"))


def check_cluster(status_command: str) -> None:
    """Raise a VinyError if SLURM forgets jobs before Snakemake, by `status_command`, sees that they have ended."""
    found = re.search(r"MinJobAge\s*=\s*(\d+)", _slurm("scontrol", "show", "config"))
    age = int(found[1]) if found else 0  # 0: they are never forgotten
    if 0 < age < LOOKS and status_command == "squeue":
        raise VinyError(
            f"this cluster forgets jobs {age} s after their end (MinJobAge), but Snakemake looks every {LOOKS:.0f} s: "
            "it would wait forever for jobs that ended meanwhile or were canceled. Ask the administrators for "
            "MinJobAge=300, SLURM's default; or, on a cluster with accounting, set `slurm-status-command: sacct` in "
            "the profile and cancel no job while Snakemake waits for it"
        )


def _slurm(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    except FileNotFoundError:
        raise VinyError(f"there is no SLURM here ({words[0]} is missing); run this on a login node") from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or "no answer").strip() if isinstance(error.stderr, str | None) else "no answer"
        raise VinyError(f"{words[0]} failed: {said}; try again once SLURM answers") from error
