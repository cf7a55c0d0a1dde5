"""Which Snakemakes drive the jobs of a folder, so that one that was killed does not lock out the next.

Every Snakemake that reads the Snakefile leaves a note with its host, process number and start time in
`.snakemake/drivers/`. Locks that none of the noted processes can hold any more are removed.
"""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from viny.errors import VinyError
from viny.files import write_text
from viny.logs import log
from viny.processes import Writer

LOCKS, NOTES = Path(".snakemake/locks"), Path(".snakemake/drivers")


def register(folder: Path = Path()) -> None:
    """Note this process as a driver of `folder`, and remove the locks of drivers that are gone.

    Locks stay if a noted process lives, or if it is on another host, where nobody can look; and if no process is noted
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


def _noted(folder: Path) -> dict[Path, Writer]:
    """The drivers that have left a note, by its path."""
    noted = {}
    for path in (folder / NOTES).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            noted[path] = Writer(**json.loads(path.read_bytes()))
    return noted
