"""Lists and tables that come with images, as text editors and spreadsheets write them."""

import codecs
import csv
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from viny.errors import VinyError

MAX_BYTES = 2**30


class Line(NamedTuple):
    """A line of a list or table: its number and its fields."""

    number: int
    fields: tuple[str, ...]


def decode_text(data: bytes, where: str) -> str:
    """Text in UTF-8 or UTF-16 (with a byte order mark), else as Windows writes it."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252", "latin-1"):
        with suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            break
    else:
        raise VinyError(f"{where} begins as UTF-16, but is not; save it as UTF-8")
    if "\0" in text:
        raise VinyError(f"{where} has null characters, as no text file has; save it as UTF-8 text")
    return text


def read_text(path: Path, setting: str) -> str:
    """Text of a file that the study file names in `setting`."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise VinyError(f"{setting}: {path} is a pipe or a device, no file; correct the path")
        if path.stat().st_size > MAX_BYTES:
            raise VinyError(f"{setting}: {path} is larger than {MAX_BYTES >> 20:,} MiB, too large for a list or table")
        return decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise VinyError(f"{setting}: {path} cannot be read ({error.strerror}); correct the path") from error


def read_lines(text: str) -> list[Line]:
    """The lines of a list that are not empty, one field each."""
    lines = enumerate(_lines(text), start=1)
    return [Line(number, (line.strip(),)) for number, line in lines if line.strip()]


def read_table(text: str, where: str, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[Line]:
    """The named columns of a CSV (semicolons and tabs are read, too), in that order; empty without an optional one."""
    first, _, _ = text.lstrip().partition("\n")
    rows = csv.reader(_lines(text), delimiter=max(",;\t", key=first.count), strict=True)
    filled = ((rows.line_num, cells) for row in rows if any(cells := [cell.strip() for cell in row]))
    lines = []
    try:
        header = [cell.lower() for cell in next(filled, (0, columns))[1]]
        if twice := [name for name in (*columns, *optional) if header.count(name) > 1]:
            raise VinyError(f"{where}: its first line names the column {twice[0]} more than once; rename one")
        if not {*columns} <= {*header}:
            raise VinyError(
                f"{where}: its first line must name the columns {','.join(columns)}, but is {first.strip()[:80]!r}"
            )
        for number, cells in filled:
            named = dict(zip(header, cells, strict=False))
            if empty := [name for name in columns if not named.get(name)]:
                raise VinyError(f"{where}, line {number}: no {' and no '.join(empty)}; fill it in")
            lines.append(Line(number, tuple(named.get(name, "") for name in (*columns, *optional))))
    except csv.Error as error:
        raise VinyError(f"{where}, line {rows.line_num}: not a table of comma-separated values ({error})") from error
    if not lines:
        raise VinyError(f"{where} has no lines; expected a table with the columns {','.join(columns)}")
    return lines


def _lines(text: str) -> list[str]:
    """Lines as editors count them; `str.splitlines` ends lines at characters that file names may have."""
    return re.split("\r\n|\r|\n", text)
