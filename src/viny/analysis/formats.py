"""Tables for people, written as Markdown, LaTeX (booktabs), HTML and CSV; how numbers are printed; the templates."""

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from pydantic_core import to_json

from viny.analysis.frames import write_csv
from viny.files import write_text

MISSING = "–"  # how a value that does not exist is shown
_LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "–": "--", "−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "→": r"$\to$"},
}


@dataclass
class Table:
    """A table as it is printed.

    Attributes:
        name: what the paper calls it, `Table A2`; empty for a table that the paper does not have.
        title: one sentence above the table.
        columns: headings.
        rows: cells as text, one list per row; `±` and `–` are turned into LaTeX where needed.
        frame: the same content as numbers, written as CSV (empty cell: missing).
        note: what a reader must know, below the table; also says why a table is empty.
        left: number of columns from the left that hold text and are aligned left.
        group: number of columns from the left that name a group of rows. They are printed in its first row alone, as in
            the paper.
        rules: rows before which a thin line is drawn, where a new group begins.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    note: str = ""
    left: int = 1
    group: int = 0
    rules: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Find the groups."""
        given, above = self.rows, [""] * self.group
        self.rows = []
        for row in given:
            place = row[: self.group]
            if place != above and self.rows:
                self.rules.add(len(self.rows))
            shown = ["" if place[: i + 1] == above[: i + 1] else text for i, text in enumerate(place)]
            self.rows.append(shown + row[self.group :])
            above = place

    def text(self, form: str) -> str:
        """The table as `md`, `tex` or a page of `html`."""
        return render(f"table.{form}", table=self)

    def write(self, stem: Path) -> None:
        """Write `stem`.csv, `stem`.md, `stem`.tex and `stem`.html."""
        write_csv(stem.with_suffix(".csv"), self.frame)
        for form in ("md", "tex", "html"):
            write_text(stem.with_suffix(f".{form}"), self.text(form))


def render(template: str, **values: Any) -> str:
    """A file made from one of the templates; values are escaped in HTML."""
    return _templates().get_template(f"{template}.j2").render(values)


def number(value: float | None, decimals: int = 2, signed: bool = False) -> str:
    """A number with fixed decimals, or the sign for missing."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text if float(text) else f"{0:.{decimals}f}"  # never "-0.00"


def plus_minus(mean: float, error: float, decimals: int = 2, signed: bool = False) -> str:
    """`mean ± standard error`; the mean alone where one run gives no error."""
    shown = number(mean, decimals, signed)
    return shown if MISSING in (shown, number(error)) else f"{shown} ± {number(error, decimals)}"


def joined(words: list[str]) -> str:
    """`1, 2 or 3`; nothing for no words."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def count(value: float) -> str:
    """`45000` -> `45,000`."""
    return f"{int(value):,}"


def any_number(value: Any) -> str:
    """A value of any kind: whole numbers with commas, others with two decimals or two significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if is_missing(value):
        return MISSING
    if float(value).is_integer() and abs(value) >= 1:
        return count(value)
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def is_missing(value: Any) -> bool:
    """Whether a value does not exist: None or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _json(value: Any, **_: Any) -> str:
    return to_json(value, inf_nan_mode="null").decode()


@cache
def _templates() -> Environment:
    escape = select_autoescape(("html.j2",), default=False)
    blocks: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    made = Environment(loader=PackageLoader("viny.analysis"), autoescape=escape, **blocks)
    made.filters["latex"] = lambda text: "".join(_LATEX.get(character, character) for character in text)
    made.filters["number"] = any_number
    made.filters["capital"] = lambda text: text[:1].upper() + text[1:]
    made.policies["json.dumps_function"] = _json  # what `tojson` makes safe inside a script element
    made.tests["missing"] = is_missing
    return made
