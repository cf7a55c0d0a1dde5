"""State of a run that outlives its process: a killed run carries on where it was.

The folder `<root>/<stage>-<run key>/` holds

- `run.json`: what the run is (job, output folder, everything that defines it),
- `lock`: held by the process that works on the run,
- `state.pt`, `previous.pt`: the last two saved positions,
- `failed.txt`: why a run failed for good: it is not tried again,
- `progress.json`: the process at work, its position, rate and remaining time,
- `done/`: the results of a finished run, which come back if Snakemake or the user deletes them.

The folder is no declared output: Snakemake deletes those of an interrupted job. Without locks between hosts, two
processes may work on one run: both write the same positions, and the results of the first to finish count.
"""

import contextlib
import errno
import fcntl
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from viny.errors import FinalError, VinyError
from viny.files import file_sha256, replacing, tidy, write_text
from viny.fingerprint import fingerprint
from viny.logs import log
from viny.processes import Writer

_CHECKSUMS = "checksums.json"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class RunState:
    """The state folder of one run, named by a fingerprint of everything that defines the run.

    All methods raise VinyError if a file cannot be written.

    Args:
        root: folder of all runs' states.
        identity: JSON-serializable; two runs share a state only if it is equal.
        output: where the results go in the end.
    """

    def __init__(self, root: Path, stage: str, identity: dict[str, Any], output: Path):
        self.key = fingerprint(identity)
        self.folder = root / f"{stage}-{self.key}"
        self.output = output
        self.kept: dict[str, Any] = {}  # saved along with every position
        self._description = {"stage": stage, "key": self.key, "output": str(output), **identity}
        self._writer = asdict(Writer.current())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; wait for another process that works on the same run.

        A record lock of the operating system ends with its process and works across the nodes of a cluster. Where there
        are no locks, nothing is held.

        Raises:
            FinalError: the run has failed for good before; the same settings, code and images would fail again.
        """
        with _writing(self.folder):
            file = self._locked()
            tidy(self.folder)
            write_text(self.folder / "run.json", json.dumps(self._description, indent=1) + "\n")
        failure = self.folder / "failed.txt"
        with file:
            self.show({})
            if failure.exists():
                said = failure.read_text(encoding="utf-8")
                raise FinalError(f"{said} (it failed so before; to try the same again, delete {self.folder})")
            try:
                yield
            except FinalError as error:
                write_text(failure, str(error))
                raise

    def _locked(self) -> TextIO:
        path = self.folder / "lock"
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the folder has just been removed
                file = path.open("a")
                try:
                    try:
                        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        log.info(f"another process is working on this run ({self.folder}); waiting for it")
                        fcntl.lockf(file, fcntl.LOCK_EX)
                except OSError as error:
                    if error.errno not in _NO_LOCKS:
                        raise
                    log.warning(f"no locks in {self.folder} ({error.strerror}); a run started twice is trained twice")
                if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                    return file
                file.close()  # the folder was removed while waiting: this lock guards nothing any more

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved position by `state` (tensors, numbers, strings, lists, dicts), keeping the one before."""
        import torch  # here, not above: removing and looking on need no torch

        buffer = io.BytesIO()  # torch reports a full disk as an error of its own, or not at all
        torch.save({**self.kept, **state}, buffer)
        current = self.folder / "state.pt"
        with _writing(current), replacing(current, sync=True) as temporary:
            temporary.write_bytes(buffer.getvalue())
            with contextlib.suppress(FileNotFoundError):  # the first position, or another process was quicker
                current.replace(self.folder / "previous.pt")

    def load(self) -> dict[str, Any] | None:
        """The last saved position that is whole, or None; a damaged file is reported and the one before taken."""
        for path in (self.folder / "state.pt", self.folder / "previous.pt"):
            try:
                return _read(path)
            except FileNotFoundError:
                continue
            except OSError:
                raise
            except Exception as error:  # damage can raise anything
                reason = str(error).partition(". ")[0] or type(error).__name__
                log.warning(f"the saved state {path} cannot be used ({reason}); falling back to the one before it")
        return None

    def show(self, progress: dict[str, Any]) -> None:
        """Publish `progress`, and which process works on the run, for `viny status`."""
        path = self.folder / "progress.json"
        with _writing(path):
            write_text(path, json.dumps({**progress, **self._writer, "time": time.time()}) + "\n")

    @contextlib.contextmanager
    def finishing(self) -> Iterator[Path]:
        """A folder to write the results into; on leaving, they are kept as `done/` and exported.

        From the moment that `done/` is in place the run counts as finished; the saved positions are removed.
        """
        done = self.folder / "done"
        if self._kept() is None:
            shutil.rmtree(done, ignore_errors=True)
        with _writing(done):
            try:
                with replacing(done, sync=True) as temporary:
                    temporary.mkdir()
                    yield temporary
                    sums = {path.name: file_sha256(path) for path in sorted(temporary.iterdir())}
                    (temporary / _CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n")
            except OSError:
                if self._kept() is None:  # otherwise another process was quicker
                    raise
        self.export()
        for name in ("state.pt", "previous.pt", "progress.json"):
            (self.folder / name).unlink(missing_ok=True)

    def export(self) -> bool:
        """Put the results of a finished run into the output folder; False if there are no whole results.

        metrics.json comes last: where it is, the other files are. What a killed process left half-written there goes.
        """
        names, done = self._kept(), self.folder / "done"
        if names is None:
            if done.exists():
                log.warning(f"the kept results in {done} are damaged; the run is done again")
            return False
        with _writing(self.output):
            for name in sorted(names, key=lambda name: (name == "metrics.json", name)):
                with replacing(self.output / name, sync=True) as temporary:
                    try:
                        os.link(done / name, temporary)
                    except OSError:  # no second names here
                        shutil.copyfile(done / name, temporary)
                    os.utime(temporary)
            tidy(self.output)
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


def prune_states(root: Path) -> int:
    """Remove the states of finished runs under `root`, and those whose results another run has since written.

    A state that a process holds is left alone. Returns how many were removed.
    """
    removed = 0
    for folder in sorted(root.glob("*-*")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError), (folder / "lock").open("a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (folder / "done").exists():
                run = json.loads((folder / "run.json").read_text())
                metrics = json.loads((Path(run["output"]) / "metrics.json").read_text())
                if metrics["provenance"]["run_key"] == run["key"]:
                    continue
            shutil.rmtree(folder)
            removed += 1
    return removed


def _read(path: Path) -> dict[str, Any]:
    """A saved position; torch's files are zip archives, whose checksums torch itself does not look at."""
    import torch

    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return saved


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a VinyError that names the file and says that nothing is lost."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        place = error.filename2 or error.filename or path
        raise VinyError(
            f"cannot write {place}: {error.strerror}; once that is fixed the same command carries on from the last "
            "saved position"
        ) from error
