"""What all commands show in a terminal: a console that suits it, symbols, and numbers for people."""

import argparse
import os
import sys

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from viny.logs import duration

_PIPED = 200  # columns where there is no terminal to say how many there are
# State of a job: symbol, the same in ASCII, style.
SYMBOLS = {
    "done": ("■", "#", "green"),
    "running": ("▶", ">", "bold cyan"),
    "interrupted": ("◐", "~", "yellow"),
    "failed": ("✗", "x", "bold red"),
    "outdated": ("□", "o", "magenta"),
    "waiting": ("·", ".", "dim"),
}


def console() -> Console:
    """Standard output, plain where it is no terminal; what it cannot show is replaced, not an error."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    width = None if sys.stdout.isatty() else _PIPED
    return Console(width=width, highlight=False, markup=False, emoji=False)


def symbol(state: str, console: Console) -> Text:
    """The symbol of a job's state."""
    plain, ascii_only, style = SYMBOLS[state]
    return Text(plain if console.encoding.startswith("utf") else ascii_only, style)


def dot(console: Console) -> str:
    """What separates the parts of a line."""
    return " · " if console.encoding.startswith("utf") else " - "


def table(*headings: str) -> Table:
    """A table without lines; its first column is aligned left, the others right."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number else "left")
    return made


def indented(text: str, style: str = "", by: int = 2) -> Padding:
    """Text that keeps its indentation where it is wrapped."""
    return Padding(Text(text, style, overflow="fold"), (0, 0, 0, by), expand=False)


def positive(text: str) -> int:
    """A number of a command line that is 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def span(seconds: float | None) -> str:
    """`2:03:04`, or `?` for None."""
    return "?" if seconds is None else duration(seconds)


def plural(number: int, word: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
