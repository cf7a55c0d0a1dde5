"""Tables for people: one small type that writes itself as Markdown, LaTeX (booktabs), HTML and CSV."""

import math
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

from viny.analysis.files import write_csv, write_text

MISSING = "–"  # how a value that does not exist is shown
HTML_HEAD = """<meta charset="utf-8">
<style>
table {border-collapse: collapse; font: 13px system-ui, sans-serif; border-top: 2px solid; border-bottom: 2px solid;}
th, td {padding: 2px 10px; text-align: right;} .l {text-align: left;} th {border-bottom: 1px solid;}
p {font: 13px system-ui, sans-serif; max-width: 50em;}
</style>
"""


@dataclass
class TextTable:
    """A table as it is printed.

    Attributes:
        name: what the paper calls it, `Table A2`; empty for a table that the paper does not have.
        title: one sentence above the table.
        columns: headings.
        rows: cells as text, one list per row; `±` and `–` are turned into LaTeX where needed.
        frame: the same content as numbers, written as CSV (empty cell: missing).
        note: what a reader must know, below the table; also says why a table is empty.
        left: number of columns from the left that hold text and are aligned left.
        rules: rows before which LaTeX draws a thin line.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    frame: pd.DataFrame
    note: str = ""
    left: int = 1
    rules: set[int] = field(default_factory=set)

    def markdown(self) -> str:
        """The table as GitHub-flavored Markdown."""
        lines = [f"**{self.name}. {self.title}**" if self.name else f"**{self.title}**", ""]
        if self.rows:
            align = [":--" if i < self.left else "--:" for i in range(len(self.columns))]
            table = [self.columns, align, *self.rows]
            lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in table]
            lines.append("")
        if self.note:
            lines += [self.note, ""]
        return "\n".join(lines)

    def html(self) -> str:
        """The table as a fragment of HTML, as the report shows it."""
        heading = f"<b>{escape(self.name)}.</b> {escape(self.title)}" if self.name else escape(self.title)
        parts = [f"<p>{heading}</p>"]
        if self.rows:
            parts += ["<table>", _html_row(self.columns, "th", self.left)]
            parts += [_html_row(row, "td", self.left) for row in self.rows]
            parts.append("</table>")
        if self.note:
            parts.append(f"<p><small>{escape(self.note)}</small></p>")
        return "\n".join(parts) + "\n"

    def latex(self) -> str:
        r"""The table as a LaTeX `table` float; needs `\usepackage{booktabs}`."""
        spec = "l" * self.left + "r" * (len(self.columns) - self.left)
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_latex_cell(self.title)}}}"]
        if self.rows:
            lines += [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", _latex_row(self.columns), r"\midrule"]
            for number, row in enumerate(self.rows):
                if number in self.rules:
                    lines.append(r"\midrule")
                lines.append(_latex_row(row))
            lines += [r"\bottomrule", r"\end{tabular}"]
        if self.note:
            lines += [rf"\\[2pt] {{\footnotesize {_latex_cell(self.note)}}}"]
        lines += [r"\end{table}", ""]
        return "\n".join(lines)

    def write(self, stem: Path) -> None:
        """Write `stem`.csv, `stem`.md, `stem`.tex and `stem`.html."""
        write_csv(stem.with_suffix(".csv"), self.frame)
        write_text(stem.with_suffix(".md"), self.markdown())
        write_text(stem.with_suffix(".tex"), self.latex())
        write_text(stem.with_suffix(".html"), HTML_HEAD + self.html())


def number(value: float | None, decimals: int = 2, signed: bool = False) -> str:
    """A number with fixed decimals, or the sign for missing."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text if float(text) else f"{0:.{decimals}f}"  # never "-0.00"


def plus_minus(mean: float, error: float, decimals: int = 2, signed: bool = False) -> str:
    """`mean ± standard error`; the mean alone where one run gives no error."""
    if math.isnan(mean):
        return MISSING
    if error is None or math.isnan(error):
        return number(mean, decimals, signed)
    return f"{number(mean, decimals, signed)} ± {number(error, decimals)}"


def count(value: float) -> str:
    """`45000` -> `45,000`."""
    return f"{int(value):,}"


def _html_row(cells: list[str], tag: str, left: int) -> str:
    aligned = (f"<{tag} class='l'>" if i < left else f"<{tag}>" for i in range(len(cells)))
    return (
        "<tr>" + "".join(f"{start}{escape(cell)}</{tag}>" for start, cell in zip(aligned, cells, strict=True)) + "</tr>"
    )


def _markdown_cell(text: str) -> str:
    return text.replace("|", r"\|")


def _latex_row(cells: list[str]) -> str:
    return " & ".join(_latex_cell(cell) for cell in cells) + r" \\"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\to$",
}


def _latex_cell(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
