"""Stages without their start-up: jobs are forked from one process that has torch and timm loaded already.

    python -m viny.stages.warm finetune --store ... (the flags of `python -m viny.stages.finetune`)

Importing takes seconds, which is most of what a small cell costs. The first job starts a server in the background; each
job is a fork of it with the job's own files, environment and working directory. A job stays a process of its own:
it fails alone, signals reach it, and it stops when the command that asked for it goes away. The server ends after a
while without jobs. Wherever anything is in the way (no server, changed code), the stage runs in this process instead.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

STAGES = ("pretrain", "intermediate", "finetune", "geometry")
IDLE_SECONDS = 30.0
_START_SECONDS = 60.0
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LENGTH = 8  # bytes of a message's length
_STARTED = b"+"  # a job's first answer; the second is its exit code


def main(argv: Sequence[str]) -> int:
    """Run a stage as a fork of the server, or here if that cannot be; returns its exit code."""
    if argv[:1] == ["--serve"]:
        serve(Path(argv[1]))
        return 0
    if not argv or argv[0] not in STAGES:
        print(f"usage: python -m viny.stages.warm {{{','.join(STAGES)}}} ...", file=sys.stderr)
        return 2
    connection = _connect()
    code = _ask(connection, argv) if connection else None
    return _run_here(argv) if code is None else code


def _ask(connection: socket.socket, argv: Sequence[str]) -> int | None:
    """Have the server run a stage and wait for it; None if it never started."""
    request = json.dumps({"argv": list(argv), "cwd": str(Path.cwd()), "env": dict(os.environ)}).encode()
    with connection:
        try:
            socket.send_fds(connection, [len(request).to_bytes(_LENGTH)], [0, 1, 2])
            connection.sendall(request)
        except OSError:
            return None
        with _passed_on(connection) as signals:
            if _answer(connection) is None:
                return 128 + signals[0] if signals else None
            code = _answer(connection)
    if code is None:
        print("viny: error: the job died without a word (killed, or out of memory?)", file=sys.stderr)
    return 1 if code is None else code


def _answer(connection: socket.socket) -> int | None:
    """The next byte from the other side, None if there is nobody any more."""
    with contextlib.suppress(OSError):
        return next(iter(connection.recv(1)), None)
    return None


@contextlib.contextmanager
def _passed_on(connection: socket.socket) -> Iterator[list[int]]:
    """Send the signals that ask this process to stop to the other side, and collect them."""
    received: list[int] = []

    def pass_on(signum: int, _: object) -> None:
        received.append(signum)
        with contextlib.suppress(OSError):
            connection.send(bytes([signum]))

    before = {number: signal.signal(number, pass_on) for number in _FORWARDED}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_here(argv: Sequence[str]) -> int:
    sys.argv = [f"viny.stages.{argv[0]}", *argv[1:]]
    runpy.run_module(f"viny.stages.{argv[0]}", run_name="__main__", alter_sys=True)
    return 0


def _connect() -> socket.socket | None:
    """A connection to the server, started if need be; None if there can be none."""
    try:
        path = _address()
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several jobs that start at once, one starts the server
            connection = _try(path)
            if connection:
                return connection
            with path.with_suffix(".log").open("w") as log:
                server = subprocess.Popen(
                    [sys.executable, "-m", "viny.stages.warm", "--serve", str(path)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            give_up = time.monotonic() + _START_SECONDS
            while time.monotonic() < give_up and server.poll() is None:
                connection = _try(path)
                if connection:
                    return connection
                time.sleep(0.05)
    except OSError:
        pass
    return None


def _try(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _address() -> Path:
    """Socket of the server for this user, Python and checkout, in a folder that nobody else can enter."""
    folder = Path(tempfile.gettempdir(), f"viny-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = folder.lstat()
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(folder)
    identity = "\n".join([sys.executable, str(Path(__file__).resolve()), os.environ.get("CUDA_VISIBLE_DEVICES", "")])
    return folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.sock"


def serve(path: Path, idle_seconds: float = IDLE_SECONDS) -> None:
    """Load what the stages need, then fork a job for each request until none has come for a while."""
    loaded = _code_dates()
    import torch._dynamo  # noqa: F401, every optimizer imports it

    import viny.stages.finetune
    import viny.stages.geometry
    import viny.stages.intermediate
    import viny.stages.pretrain  # noqa: F401

    path.unlink(missing_ok=True)
    jobs: set[int] = set()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(64)
        server.settimeout(1.0)
        last = time.monotonic()
        while _code_dates() == loaded and time.monotonic() - last < idle_seconds:
            jobs = {pid for pid in jobs if os.waitpid(pid, os.WNOHANG) == (0, 0)}
            if jobs:
                last = time.monotonic()
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            last = time.monotonic()
            if _code_dates() != loaded:
                connection.close()
                break
            pid = os.fork()
            if pid == 0:
                server.close()
                os._exit(_job(connection))
            jobs.add(pid)
            connection.close()
        path.unlink(missing_ok=True)
    for pid in jobs:
        os.waitpid(pid, 0)


def _job(connection: socket.socket) -> int:
    """The forked process: become the asked-for command, answer with its exit code."""
    os.setsid()
    connection.settimeout(None)
    first, files, _, _ = socket.recv_fds(connection, _LENGTH, 3)
    size, message = int.from_bytes(first), b""
    while len(message) < size and (part := connection.recv(size - len(message))):
        message += part
    if not size or len(message) < size:
        return 1  # the command that asked was killed while it did
    request = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    connection.send(_STARTED)
    ended = threading.Event()
    threading.Thread(target=_listen, args=(connection, ended), daemon=True).start()
    stage, *argv = request["argv"]
    sys.argv = [f"viny.stages.{stage}", *argv]
    from viny.stages import run

    run.STARTED = time.perf_counter()
    code = 1
    with _exit_code() as exited:
        code = sys.modules[f"viny.stages.{stage}"].main(argv)
    code = exited[0] if exited else code
    ended.set()
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        connection.send(bytes([code & 0xFF]))
    return code & 0xFF


@contextlib.contextmanager
def _exit_code() -> Iterator[list[int]]:
    """Turn what ends a program (SystemExit, a traceback) into an exit code."""
    exited: list[int] = []
    try:
        yield exited
    except SystemExit as end:
        exited.append(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        exited.append(1)


def _listen(connection: socket.socket, ended: threading.Event) -> None:
    """Pass signals on to this process; stop it when the command that asked for it is gone before its end."""
    while True:
        number = b""
        with contextlib.suppress(OSError):  # a connection that broke is one that ended
            number = connection.recv(1)
        if ended.is_set():
            return
        signal.pthread_kill(threading.main_thread().ident, number[0] if number else signal.SIGTERM)
        if not number:
            return


def _code_dates() -> dict[Path, int]:
    """When each file of viny was last written, by the clock of its file system."""
    try:
        return {file: file.stat().st_mtime_ns for file in Path(__file__).parents[1].rglob("*.py")}
    except OSError:  # a file is being replaced
        return {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
