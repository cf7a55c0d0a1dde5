"""State of a run that outlives its process: a killed run carries on where it was.

The folder `<state-dir>/<stage>-<run key>/` holds

- `run.json`: what the run is (stage, coordinates, output folder, everything that defines it),
- `lock`: held by the process that works on the run,
- `state.pt`, `previous.pt`: the last two saved positions, each with a checksum,
- `progress.json`: position, rate and remaining time for whoever looks on,
- `done/`: the results of a finished run, so that a run whose results were taken away is not trained again.

The folder is no declared output: Snakemake deletes those of an interrupted job.

Where a file system has no locks that work between hosts, two processes may work on one run. That costs time and changes
nothing: both write the same positions, each through files of its own, and the results of the first to finish count.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from viny import console
from viny.errors import VinyError
from viny.provenance import file_sha256, fingerprint

_MAGIC = b"viny-state-1\n"
_CHECKSUMS = "checksums.json"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class RunState:
    """The state folder of one run, named by a fingerprint of everything that defines the run.

    Args:
        root: folder of all runs' states. stage: name of the stage.
        identity: JSON-serializable; two runs share a state only if it is equal.
        output: where the results go in the end.
    """

    def __init__(self, root: Path, stage: str, identity: dict[str, Any], output: Path):
        self.key = fingerprint(identity)
        self.folder = root / f"{stage}-{self.key}"
        self.output = output
        self._host = socket.gethostname()
        self._mine = f"{self._host}-{os.getpid()}.tmp"  # ends the names of what is not in place yet
        self._description = {"stage": stage, "key": self.key, "output": str(output), "identity": identity}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; wait for another process that works on the same run.

        A record lock of the operating system: it goes away with its process, however that dies, and works
        across the nodes of a cluster's file system. Where there are no locks, nothing is held.
        """
        path = self.folder / "lock"
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("a")
            except FileNotFoundError:
                continue  # the folder was removed in this moment
            with file:
                if self._hold(file):
                    if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                        continue  # the folder was removed while waiting: this lock guards nothing any more
                    self._tidy()
                self._write_json("run.json", self._description)
                yield
                return

    def _hold(self, file: TextIO) -> bool:
        """Wait for the lock; False where there are none."""
        try:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.say(f"another process is working on this run ({self.folder}); waiting for it")
                fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            console.say(f"warning: no locks in {self.folder} ({error.strerror}); a run started twice is trained twice")
            return False
        return True

    def _tidy(self) -> None:
        """Remove what killed processes of this host left half-written; no other one of it is at work."""
        mine = f"{glob.escape(self._host)}-*.tmp"
        for path in (*self.folder.glob(f"*.{mine}"), *self.output.glob(f".*.{self.key}.{mine}")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def once(self, name: str, make: Callable[[], int]) -> int:
        """A number that is made when the run first starts and stays the same when it is resumed.

        Raises:
            VinyError: the file that keeps it is damaged.
        """
        path = self.folder / f"{name}.json"
        if not path.exists():
            temporary = self.folder / f"{path.name}.{self._mine}"
            with _writing(path):
                temporary.write_text(f"{make()}\n")
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass  # another process was quicker, its number counts
                except OSError:  # no second names here
                    temporary.replace(path)
                temporary.unlink(missing_ok=True)
        try:
            return int(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise VinyError(f"{path} is damaged; delete the folder {self.folder} to begin this run anew") from error

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved position by `state` (tensors, numbers, strings, lists, dicts), keeping the one before."""
        import torch  # here, not above: pruning and looking on need no torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        temporary, current = self.folder / f"state.{self._mine}", self.folder / "state.pt"
        # The view is given back even when writing fails: some releases of Python 3.12 crash if an error keeps it.
        with buffer.getbuffer() as payload, _writing(temporary):
            with temporary.open("wb") as file:
                file.write(_MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):  # the first position, or another process was quicker
                current.replace(self.folder / "previous.pt")
            temporary.replace(current)

    def load(self) -> dict[str, Any] | None:
        """The last saved position that is whole, or None; a damaged file is reported and the one before taken."""
        for path in (self.folder / "state.pt", self.folder / "previous.pt"):
            try:
                state = _read_state(path)
            except FileNotFoundError:
                continue
            if state is not None:
                return state
            console.say(f"warning: the saved state {path} is damaged; falling back to the one before it")
        return None

    def show(self, progress: dict[str, Any]) -> None:
        """Publish `progress` for whoever looks on while the run is going."""
        self._write_json("progress.json", {**progress, "time": time.time()})

    @contextlib.contextmanager
    def finishing(self) -> Iterator[Path]:
        """A folder to write the results into; on leaving, they are kept as `done/` and exported.

        From the moment that `done/` is in place the run counts as finished; the saved positions are removed.

        Raises:
            VinyError: a file cannot be written.
        """
        temporary, done = self.folder / f"done.{self._mine}", self.folder / "done"
        with _writing(temporary):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            sums = {path.name: file_sha256(path) for path in sorted(temporary.iterdir())}
            (temporary / _CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n")
            for path in temporary.iterdir():
                _sync(path)
            try:
                temporary.replace(done)
            except OSError:  # something is there
                if self._kept() is not None:  # another process was quicker
                    shutil.rmtree(temporary)
                else:
                    shutil.rmtree(done, ignore_errors=True)
                    temporary.replace(done)
        self.export()
        for name in ("state.pt", "previous.pt", "progress.json"):
            (self.folder / name).unlink(missing_ok=True)

    def export(self) -> bool:
        """Put the results of a finished run into the output folder; False if there are no whole results.

        metrics.json comes last: where it is, the other files are.

        Raises:
            VinyError: a file cannot be written.
        """
        names = self._kept()
        if names is None:
            if (self.folder / "done").exists():
                console.say(f"warning: the kept results in {self.folder / 'done'} are damaged; the run is done again")
            return False
        with _writing(self.output):
            self.output.mkdir(parents=True, exist_ok=True)
            for name in sorted(names, key=lambda name: (name == "metrics.json", name)):
                self._place(name)
        return True

    def _kept(self) -> list[str] | None:
        """Names of the results in `done/`, None if they are not there or not whole."""
        done = self.folder / "done"
        try:
            sums = json.loads((done / _CHECKSUMS).read_text())
            whole = all(file_sha256(done / name) == value for name, value in sums.items())
        except (OSError, ValueError, AttributeError):
            return None
        return list(sums) if whole else None

    def _place(self, name: str) -> None:
        """Put a kept result into the output folder in one step: a second name where possible, else a copy."""
        source, target = self.folder / "done" / name, self.output / name
        if target.exists() and target.samefile(source):
            return  # a rename between two names of one file would do nothing
        temporary = target.with_name(f".{name}.{self.key}.{self._mine}")
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            _sync(temporary)
        temporary.replace(target)
        os.utime(target)

    def _write_json(self, name: str, value: Any) -> None:
        temporary = self.folder / f"{name}.{self._mine}"
        with _writing(self.folder / name):
            temporary.write_text(json.dumps(value, indent=1) + "\n")
            temporary.replace(self.folder / name)


def prune_states(root: Path) -> int:
    """Remove the states of finished runs under `root`, and those whose results another run has since written.

    A state that a process holds is left alone. Returns how many were removed.
    """
    removed = 0
    for folder in sorted(root.glob("*-*")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError), (folder / "lock").open("a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / "done").exists() or _superseded(folder):
                shutil.rmtree(folder)
                removed += 1
    return removed


def _superseded(folder: Path) -> bool:
    run = json.loads((folder / "run.json").read_text())
    metrics = Path(run["output"]) / "metrics.json"
    return metrics.exists() and json.loads(metrics.read_text())["provenance"]["run_key"] != run["key"]


def _read_state(path: Path) -> dict[str, Any] | None:
    content = path.read_bytes()
    header = len(_MAGIC) + 65
    digest = content[len(_MAGIC) : header - 1]
    payload = content[header:]
    if not content.startswith(_MAGIC) or hashlib.sha256(payload).hexdigest().encode() != digest:
        return None
    import torch

    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which file or folder could not be written, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise VinyError(
            f"cannot write {error.filename or path}: {error.strerror}; see to it and run the same command again, "
            "it carries on from the last saved position"
        ) from error
