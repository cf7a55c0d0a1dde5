"""What a command says while it works: to the terminal in short, or to its log file with times and levels."""

import contextlib
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TextIO

log = logging.getLogger("viny")


def setup(path: Path | None = None, mode: str = "w") -> None:
    """Send messages to standard error or, with times, to the file `path`: started afresh, or carried on (mode `a`)."""
    # A terminal that has gone away or a full disk must not end a training run.
    logging.raiseExceptions = False
    log.handlers[:] = [_File(path, mode) if path else _Terminal()]
    log.setLevel(logging.INFO)
    log.propagate = False


def duration(seconds: float) -> str:
    """`3725.2` -> `1:02:05`."""
    try:
        return str(timedelta(seconds=round(seconds)))
    except OverflowError:
        return f"more than {timedelta.max.days:,} days"


class Progress:
    """A line with share done, rate and remaining time: at most one every `every` seconds, and one at the end.

    Args:
        label: what is being done, e.g. `finetune pretrain=0 downstream=250 seed=1`.
        total: how many units there are in all.
        unit: name of a unit, e.g. `images`.
        done: units done before this process started (a resumed run); not counted in the rate.
    """

    def __init__(self, label: str, total: int, unit: str = "images", done: int = 0, every: float = 10.0):
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.done = self._at_start = done
        self._start = self._last = time.monotonic()

    @property
    def rate(self) -> float:
        """Units a second since this process started."""
        return (self.done - self._at_start) / max(time.monotonic() - self._start, 1e-9)

    @property
    def remaining(self) -> float:
        """Estimated seconds to the end."""
        return (self.total - self.done) / self.rate if self.rate else float("inf")

    def advance(self, units: int, note: str = "") -> None:
        """Count `units` as done and say so if it is time."""
        self.done += units
        now = time.monotonic()
        if now - self._last >= self.every and self.done < self.total:
            self._last = now
            left = duration(self.remaining) if self.rate else "?"
            self._say(f"{self.done / self.total:4.0%}, {self.rate:,.0f} {self.unit}/s, {left} left", note)

    def finish(self, note: str = "") -> None:
        """Say the last line."""
        took = duration(time.monotonic() - self._start)
        self._say(f"done, {self.done:,} {self.unit} in {took} ({self.rate:,.0f}/s)", note)

    def _say(self, text: str, note: str) -> None:
        log.info("%s", f"{self.label}: {text}{f', {note}' if note else ''}")


class _Terminal(logging.StreamHandler[TextIO]):
    """Plain messages; warnings and errors say what they are. Tracebacks only where nobody expected the error."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        level = {logging.WARNING: "warning: ", logging.ERROR: "error: "}.get(record.levelno, "")
        text = f"viny: {level}{record.getMessage()}" if level else record.getMessage()
        return f"{text}\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else text


class _File(logging.FileHandler):
    """Messages with times and levels; those that the disk does not take go to the terminal."""

    def __init__(self, path: Path, mode: str):
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, mode, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        _Terminal().handle(record)


with contextlib.suppress(AttributeError):  # standard error may be closed or replaced by something odd
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
