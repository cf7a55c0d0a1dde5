"""Errors for people: one message that says what is wrong, where, and what to do."""

import difflib
import functools
import logging
import sys
from collections.abc import Callable, Iterable

log = logging.getLogger("viny")


class VinyError(Exception):
    """A mistake in input, settings or surroundings that the user can fix; shown without a traceback."""

    exit_code = 1


class UsageError(VinyError):
    """A command line that contradicts itself or names what is not there."""

    exit_code = 2


class FinalError(VinyError):
    """A `VinyError` that trying the same again cannot get around: a setting is wrong, or training diverges."""

    exit_code = 4


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap a command's `main`: print a `VinyError` as one message and return its exit code.

    Out of disk, no permission and the like (`OSError` of the operating system) are the user's to fix as well. Ctrl-C
    ends with exit code 130. Anything else is a bug: its traceback goes to the log, too.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> int:
        try:
            return main(*args, **kwargs) or 0
        except VinyError as error:
            log.error("%s", error)
            return error.exit_code
        except BrokenPipeError:
            sys.stderr.close()
        except OSError as error:
            if error.errno is None:
                log.exception("unexpected error")
                return 1
            log.error("%s%s", error.strerror, f" ({error.filename})" if error.filename else "")
        except KeyboardInterrupt:
            log.warning("interrupted")
            return 130
        except Exception:
            log.exception("unexpected error, please report it")
        return 1

    return wrapped


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """` (did you mean `x`?)`, or nothing if no known word is near."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" (did you mean `{near[0]}`?)" if near else ""


def shortened(lines: list[str], limit: int = 10) -> str:
    """The first lines, one below the other, and how many more there are."""
    more = [f"  and {len(lines) - limit:,} more"] if len(lines) > limit else []
    return "\n".join(lines[:limit] + more)
