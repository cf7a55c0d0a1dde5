"""Errors for people: one message that says what is wrong, where, and what to do."""

import functools
import sys
import traceback
from collections.abc import Callable


class VinyError(Exception):
    """A mistake in input, settings or surroundings that the user can mend; shown without a traceback."""


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap a command's `main`: print a `VinyError` as one message and return exit code 1.

    Out of disk, no permission and the like (`OSError` with a file name) are the user's to mend as well.
    Ctrl-C ends with exit code 130.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> int:
        from viny import console

        try:
            return main(*args, **kwargs) or 0
        except VinyError as error:
            console.say(f"viny: error: {error}")
        except BrokenPipeError:
            sys.stderr.close()
        except OSError as error:
            if error.errno is None:
                console.record(traceback.format_exc())
                raise
            where = f" ({error.filename})" if error.filename else ""
            console.say(f"viny: error: {error.strerror}{where}")
        except KeyboardInterrupt:
            console.say("viny: interrupted")
            return 130
        except Exception:
            console.record(traceback.format_exc())  # whoever reads the log later must see why it ends
            raise
        return 1

    return wrapped
