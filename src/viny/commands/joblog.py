"""The log of a job: what it said last, what failed, and its warnings."""

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) (.*)")


@dataclass(frozen=True)
class JobLog:
    """Messages with their levels, each with the lines that follow it, and the seconds since the last one.

    Every start of a job begins its log afresh, so an error at the end is the end of the last attempt.
    """

    records: tuple[tuple[str, tuple[str, ...]], ...] = ()
    age: float = math.inf

    @classmethod
    def read(cls, path: Path) -> "JobLog":
        """The log in a file; an empty one if it cannot be read."""
        try:
            text, age = path.read_text(encoding="utf-8", errors="replace"), abs(time.time() - path.stat().st_mtime)
        except OSError:
            return cls()
        records: list[tuple[str, list[str]]] = []
        for line in filter(None, map(str.rstrip, text.splitlines())):
            if found := _RECORD.fullmatch(line):
                records.append((found[1], [found[2]]))
            elif records:
                records[-1][1].append(line)
        return cls(tuple((level, tuple(lines)) for level, lines in records), age)

    @property
    def last(self) -> str:
        """The last message."""
        return self.records[-1][1][0] if self.records else ""

    @property
    def error(self) -> tuple[str, ...]:
        """All lines of the error that the log ends in; none if it does not."""
        level, lines = self.records[-1] if self.records else ("", ())
        return lines if level in ("ERROR", "CRITICAL") else ()

    @property
    def failure(self) -> str:
        """The error in one line: its message, or what was raised."""
        said = [line for line in self.error if not line.startswith((" ", "Traceback"))]
        return said[-1] if said else ""

    @property
    def warnings(self) -> list[str]:
        """Messages that warn."""
        return [lines[0] for level, lines in self.records if level == "WARNING"]
