"""What all commands show in a terminal: a console that suits it, tables, and numbers for people."""

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from pydantic_core import to_json
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from viny.logs import duration

_PIPED = 200  # columns where there is no terminal to say how many there are


def console(stream: TextIO | None = None) -> Console:
    """Standard output or another stream, plain where it is no terminal; what it cannot show is replaced."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    stream = stream or sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    width = None if stream.isatty() else _PIPED
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(*headings: str, left: int = 1) -> Table:
    """A table without lines; its first columns are aligned left, the others right."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number >= left else "left", overflow="fold")
    return made


def print_table(out: Console, *forms: Sequence[Sequence[str]], left: int = 1) -> None:
    """Rows below their headings as a table, in the first form that is not too wide.

    Where all are, a paragraph for each row of the last form: its first columns, then the others by their names.
    """
    headings, rows = forms[-1][0], forms[-1][1:]
    for first, *others in forms:
        made = table(*first, left=left)
        for row in others:
            made.add_row(*row)
        if out.measure(made, options=out.options.update(max_width=1_000)).maximum <= out.width:
            out.print(made)
            return
    for row in rows:
        named = zip(headings[left:], row[left:], strict=False)
        out.print(Text(", ".join(row[:left]), "bold"))
        out.print(indented(", ".join(f"{heading}: {value}" for heading, value in named if value)))


def print_json(document: Any) -> None:
    """A document on a line of its own; values that are not finite numbers are null."""
    text = to_json(document, inf_nan_mode="null", fallback=lambda value: value.tolist())
    print(text.decode(), flush=True)


def indented(text: str, style: str = "", by: int = 2) -> Padding:
    """Text that keeps its indentation where it is wrapped."""
    return Padding(Text(text, style, overflow="fold"), (0, 0, 0, by), expand=False)


def span(seconds: float | None) -> str:
    """`2:03:04`, or `?` for None."""
    return "?" if seconds is None else duration(seconds)


def plural(number: int, word: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
