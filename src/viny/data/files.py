"""Files that are either whole or absent, and a lock between processes."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from viny import console
from viny.errors import VinyError


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o666 & ~_umask())  # mkstemp's 0600 would hide a shared file from colleagues
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path, purpose: str) -> Iterator[None]:
    """Hold the lock of `folder`, made if need be; wait, and say so, while another process holds it.

    The lock belongs to the process: it is free as soon as its holder ends, however it ends.

    Raises:
        VinyError: the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            _hold(file, f"waiting for another process to finish {purpose} ({folder})")
        except OSError as error:
            raise VinyError(
                f"cannot lock {folder} against other processes: {error.strerror}; choose a folder on a file system "
                "with locks (setting `stores`)"
            ) from error
        yield


def _hold(file: TextIO, waiting: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.say(waiting)
        fcntl.flock(file, fcntl.LOCK_EX)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
