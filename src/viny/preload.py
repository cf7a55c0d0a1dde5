"""`viny run` without its start-up: jobs are forked from one process that has torch loaded already.

Importing takes seconds, most of what a small cell costs. Where the environment variable VINY_DRIVER names the process
that drives the jobs (`driver_id`), the first job starts a server in the background, and each job is a fork of it with
its own files, environment and working directory. It fails alone, and stops when the command that asked for it is gone.

The server ends when its driver is gone, when viny's code changes, or after a while without jobs. It takes no job whose
limits, priority, user, control group or the like differ from its own. Wherever it cannot help, a job runs in the
process that was started for it. Linux only.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from viny import logs
from viny.commands.parser import Parser, job_names, positive
from viny.logs import log
from viny.processes import Writer, inherited, stop_signals

DRIVER = "VINY_DRIVER"
_ASK, _STARTED, _REFUSED = b"?", b"+", b"-"  # a request and the first answer; after `started` comes the exit code

Command = Callable[[Sequence[str]], int]
EXIT_CODES = (
    "exit codes: 0 finished; 1 failed, trying again may help; 2 wrong usage; 4 failed for good (a setting is wrong, or "
    "the loss is not finite); 128 + n stopped by signal n with its state saved"
)


def driver_id() -> str:
    """The value of VINY_DRIVER for jobs that this process drives."""
    return json.dumps(list(vars(Writer.current()).values()))


def parser() -> Parser:
    """The command line of `viny run`."""
    text = "Run one job of a study, of any stage, or decode one of its stores; this is what Snakemake runs."
    example = "finetune/pretrain=0/intermediate=none/downstream=72/seed=1 mine.yaml"
    made = Parser("run", text, example, codes=EXIT_CODES)
    named = made.add_argument("name", metavar="NAME", help="a job or a store of the study, as `viny status` names it")
    named.completer = job_names  # type: ignore[attr-defined]
    made.add_study()
    made.add_argument("--workers", type=positive, metavar="N", help="processes that decode (default: one per core)")
    made.add_argument("--save-every", type=float, default=60.0, metavar="S", help="seconds between saved states")
    made.add_argument("--log", type=Path, metavar="FILE", help="write messages to this file, with times")
    return made


def main(argv: Sequence[str]) -> int:
    """`viny run`, as a fork of the server where that is possible; returns its exit code."""
    code = None
    if "".join(argv[:1]).startswith("stores/"):  # decoding starts processes of its own; meanwhile torch is loaded
        _server()
    else:
        code = ask(argv)
    if code is None:
        from viny.run import main as run

        code = run(argv)
    return code


def ask(argv: Sequence[str]) -> int | None:
    """Have the driver's server run a job and wait for it; its exit code, or None if the job did not start there."""
    path = _server()
    if path is None:
        return None
    answer, code, signals = b"", b"", list[int]()
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX) as connection,
        os.fdopen(os.memfd_create("request"), "w+") as request,
    ):
        asked = {"argv": list(argv), "cwd": str(Path.cwd()), "env": dict(os.environ), "context": inherited()}
        json.dump(asked, request)
        request.seek(0)
        connection.connect(str(path))

        def pass_on(signum: int) -> None:
            signals.append(signum)
            connection.send(bytes([signum]))

        with stop_signals(pass_on):
            socket.send_fds(connection, [_ASK], [0, 1, 2, request.fileno()])
            answer = connection.recv(1)
            code = connection.recv(1) if answer == _STARTED else b""
    if code:
        return code[0]
    if signals:
        return 128 + signals[0]
    if answer == _STARTED:
        with contextlib.suppress(OSError):  # said where the job spoke
            logs.setup(parser().parse_args(argv).log, "a")
        log.error("the job ended without an exit code (killed, or out of memory?)")
        return 1
    if answer != _REFUSED and path.exists():  # a server that ends in order removes its socket
        with contextlib.suppress(OSError), path.with_suffix(".failed").open("x"):
            log.warning(f"the preload server failed ({path.with_suffix('.log')}); jobs load torch by themselves")
    return None


def serve(listening: socket.socket, path: Path, load: Callable[[], Command], idle: float = 60.0) -> None:
    """Fork a job for each request that comes to `path`, until the driver is gone or none has come for `idle` seconds.

    Args:
        load: imports what jobs need and returns their command.
    """
    mine, driver, code = inherited(), Writer(*json.loads(os.environ[DRIVER])), _code_dates()
    command, jobs = load(), set[int]()
    listening.settimeout(1.0)
    last = time.monotonic()
    while driver.lives and _code_dates() == code and (jobs or time.monotonic() - last < idle):
        jobs = {pid for pid in jobs if os.waitpid(pid, os.WNOHANG) == (0, 0)}
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        last = time.monotonic()
        pid = os.fork()
        if pid == 0:
            listening.close()
            os._exit(_job(connection, command, mine if _code_dates() == code else None))
        jobs.add(pid)
        connection.close()
    for suffix in (".sock", ".log", ".failed"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _server() -> Path | None:
    """Socket of the driver's server, started if need be; None if there can be none."""
    path = _address()
    if path is None or path.with_suffix(".failed").exists():
        return None
    if not path.exists():
        with contextlib.suppress(OSError):
            _start(path)
    return path


def _address() -> Path | None:
    """Socket of the driver's server, in a folder of this user alone; None if there can be none."""
    try:
        driver = Writer(*json.loads(os.environ[DRIVER]))
        if not driver.lives or not sys.platform.startswith("linux"):
            return None
        folder = Path(tempfile.gettempdir(), f"viny-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat()
    except (KeyError, ValueError, TypeError, OSError):
        return None
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        return None
    name = hashlib.sha256("\n".join([os.environ[DRIVER], sys.executable, __file__]).encode()).hexdigest()[:16]
    return folder / f"{name}.sock"


def _start(path: Path) -> None:
    """Listen at `path` and give the socket to a new server, unless another job is quicker.

    Jobs connect from that moment on, and wait until the server has loaded torch.
    """
    mine = path.with_suffix(f".{os.getpid()}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(mine))
        try:
            listening.listen(128)
            os.link(mine, path)
        except FileExistsError:
            return
        finally:
            mine.unlink()
        with path.with_suffix(".log").open("w") as said:
            words = [sys.executable, "-m", "viny.preload", str(path)]
            subprocess.Popen(words, stdin=listening.fileno(), stdout=said, stderr=said, start_new_session=True)


def _job(connection: socket.socket, command: Command, server: dict[str, Any] | None) -> int:
    """The forked process of a server in that context (None if its code is out of date): run what is asked for."""
    os.setsid()
    connection.settimeout(None)
    _, files, _, _ = socket.recv_fds(connection, 1, 4)
    if len(files) < 4:
        return 1  # the command that asked was stopped while it did
    with os.fdopen(files.pop()) as asked:
        request = json.load(asked)
    if request["context"] != server:
        connection.send(_REFUSED)
        return 0
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ |= request["env"]
    os.chdir(request["cwd"])
    connection.send(_STARTED)
    ended = threading.Event()
    threading.Thread(target=_listen, args=(connection, ended), daemon=True).start()
    sys.argv = ["viny", "run", *request["argv"]]
    try:
        code = command(request["argv"])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    ended.set()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([code]))
    return code


def _listen(connection: socket.socket, ended: threading.Event) -> None:
    """Pass signals on to this process; stop it when the command that asked for it is gone before its end."""
    number = b"+"
    while number:
        try:
            number = connection.recv(1)
        except OSError:
            number = b""
        if ended.is_set():
            return
        signal.pthread_kill(threading.main_thread().ident or 0, number[0] if number else signal.SIGTERM)


def _code_dates() -> dict[Path, int]:
    """When each file of viny was last written, by the clock of its file system."""
    try:
        return {file: file.stat().st_mtime_ns for file in Path(__file__).parent.rglob("*.py")}
    except OSError:  # a file is being replaced
        return {}


def _load() -> Command:
    import torch._dynamo  # noqa: F401, every optimizer imports it

    from viny import job, run, tasks  # noqa: F401, a run imports its job
    from viny.fingerprint import code_fingerprint

    for task in tasks.names():
        tasks.load(task)
    for what in (*tasks.names(), "decoding", "procedural"):
        code_fingerprint(what)
    return run.main


if __name__ == "__main__":
    serve(socket.socket(fileno=os.dup(0)), Path(sys.argv[1]), _load)
