"""Files that are either whole or absent, and their checksums."""

import glob
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from viny.processes import running

SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path, sync: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends, and is removed if it fails.

    A reader, or a crash, sees the old file or the new one and nothing between. A folder may be made as well, if there
    is none at `path`.

    Args:
        sync: wait until the disk has it, for what must survive a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    _remove(temporary)
    try:
        yield temporary
        if sync:
            for file in [temporary] if temporary.is_file() else temporary.iterdir():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        temporary.replace(path)
    finally:
        _remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        # Names of files need not be UTF-8: what cannot be written as such is escaped.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def temporary_name(name: str) -> str:
    """Name under which this process writes a file before it is put in place."""
    return f".{name}.{socket.gethostname()}-{os.getpid()}{SUFFIX}"


def tidy(folder: Path) -> None:
    """Remove what processes of this host that have ended left half-written in `folder`."""
    for path in folder.glob(f".*.{glob.escape(socket.gethostname())}-*{SUFFIX}"):
        pid = path.name.removesuffix(SUFFIX).rpartition("-")[2]
        if pid.isdecimal() and not running(int(pid)):
            _remove(path)


def date_back(paths: Iterable[Path]) -> None:
    """Give files of the future, made while a clock was wrong, the present date: Snakemake lets nothing follow them."""
    now = time.time()
    for path in paths:
        with suppress(OSError):
            if path.stat().st_mtime > now:
                os.utime(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
