"""Text for a terminal: colors where they are wanted, symbols that it can show, columns that line up."""

import os
import sys
from collections.abc import Iterable, Sequence

# State of a job: symbol, the same in ASCII, color.
SYMBOLS = {
    "done": ("■", "#", "32"),
    "running": ("►", ">", "36;1"),
    "interrupted": ("◐", "~", "33"),
    "failed": ("✗", "x", "31;1"),
    "waiting": ("·", ".", "2"),
}
_BOLD, _DIM, _RED = "1", "2", "31;1"


def colored() -> bool:
    """Whether standard output is a terminal whose user has not asked for no colors."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def symbol(state: str) -> str:
    """The symbol of a job's state, colored."""
    plain, ascii_, color = SYMBOLS[state]
    return paint(plain if _unicode() else ascii_, color)


def bold(text: str) -> str:
    """A heading."""
    return paint(text, _BOLD)


def dim(text: str) -> str:
    """Something less important."""
    return paint(text, _DIM)


def red(text: str) -> str:
    """Something wrong."""
    return paint(text, _RED)


def paint(text: str, color: str) -> str:
    """`text` in an ANSI color, or unchanged where colors are not wanted."""
    return f"\x1b[{color}m{text}\x1b[0m" if colored() and text else text


def table(rows: Iterable[Sequence[str]], left: int = 1, indent: str = "  ", gap: str = "  ") -> list[str]:
    """Lines of a table of uncolored text; the first `left` columns are aligned left, the others right."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        indent
        + gap.join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def size(count: float) -> str:
    """Bytes for people: `19.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit in ("B", "kB") else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def plural(number: int, word: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _unicode() -> bool:
    try:
        "■►◐✗·".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
