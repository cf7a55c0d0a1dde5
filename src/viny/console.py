"""What a command says while it works: lines to the terminal and to a log file, and a progress line."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_log: Path | None = None


def open_log(path: str | Path | None) -> None:
    """From now on repeat everything said in the file `path` (started afresh)."""
    global _log
    _log = Path(path) if path else None
    if _log:
        _log.parent.mkdir(parents=True, exist_ok=True)
        _log.write_text("")


def say(line: str) -> None:
    """Print one line to standard error and to the log.

    A terminal that has gone away or a full disk must not end a training run: failing to say something is ignored.
    """
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
    record(line)


def record(text: str) -> None:
    """Write `text` to the log alone: what the terminal gets from elsewhere."""
    if _log:
        # Names of files need not be UTF-8: what cannot be written as such is escaped.
        with contextlib.suppress(OSError), _log.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(text.rstrip("\n") + "\n")


def duration(seconds: float) -> str:
    """`3725.2` -> `1:02:05`."""
    return str(timedelta(seconds=round(seconds)))


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
            say(self.line(note))

    def finish(self, note: str = "") -> None:
        """Say the last line."""
        took = duration(time.monotonic() - self._start)
        say(f"{self.label}: done, {self.done:,} {self.unit} in {took} ({self.rate:,.0f}/s){_suffix(note)}")

    def line(self, note: str = "") -> str:
        """The progress line as it would be said now."""
        share = self.done / self.total if self.total else 1.0
        left = duration(self.remaining) if self.rate else "?"
        return f"{self.label}: {share:4.0%} · {self.rate:,.0f} {self.unit}/s · {left} left{_suffix(note)}"


def progress(items: Iterable[T], label: str, total: int, unit: str = "images") -> Iterator[T]:
    """Yield `items` and show a `Progress` line for each one taken."""
    bar = Progress(label, total, unit)
    for item in items:
        yield item
        bar.advance(1)
    bar.finish()


def _suffix(note: str) -> str:
    return f" · {note}" if note else ""
