"""Jobs in processes of their own, forked from this one, which has everything imported."""

import os
import signal
import sys
from collections.abc import Callable

from viny import run as viny_run
from viny.training import loop


def fork(command: Callable[[], int]) -> int:
    """Start `command` in a copy of this process; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = command()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """Exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start(line: list[str], hook: Callable[[], None] = lambda: None) -> int:
    """Start `viny run` with the command line `line` in a child, which `hook` prepares; returns its id."""

    def command():
        hook()
        return viny_run.main(line)

    return fork(command)


def run(line: list[str], hook: Callable[[], None] = lambda: None) -> int:
    """The same, waiting for its exit code."""
    return wait(start(line, hook))


def die(*_, **__):
    """What SIGKILL does."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, act: Callable[[], None] = die) -> Callable[[], None]:
    """Prepares a process to `act` after a step, whose position and those before it may have been saved."""

    def prepare():
        steps = iter(range(1, 1000))
        advance = loop.Progress.advance

        def watched(*args, **kwargs):
            if next(steps) == step:
                act()
            return advance(*args, **kwargs)

        loop.Progress.advance = watched

    return prepare
