"""claims.md: the verdicts as a page to read."""

import math
from typing import Any

PREFACE = """\
Each claim of the paper is a test with a criterion fixed beforehand. Tests are one-sided at alpha = {alpha:.2g}, with
moderated errors: the variances of a few runs, shrunk toward their common value.

- **supported**: the criterion is met.
- **contradicted**: the data significantly say the opposite.
- **undecided**: neither. The last column says what the numbers look like all the same.
- **not tested**: the study lacks the cells.

What the errors stand for: training again, with the same images and the same test images. They do not cover another
choice of images."""
NAMES = {
    "p": "p (one-sided)",
    "p_against": "p (other side)",
    "pretrain": "pre-train",
    "intermediate": "task",
    "downstream": "labels",
}


def claims_markdown(study: str, records: list[dict[str, Any]], confidence: float) -> str:
    """The page, from the records of `viny.analysis.claims.judge`."""
    lines = [f"# Claims on the study `{study}`", "", PREFACE.format(alpha=1 - confidence), ""]
    lines += ["| | claim | verdict | why | numbers |", "|:--|:--|:--|:--|:--|"]
    for record in records:
        lines.append(
            f"| {record['id']} | {record['statement']} | **{record['verdict']}** | {record['reason']} "
            f"| {_said(record['direction'])} |"
        )
    for record in records:
        lines += ["", f"## {record['id']}. {record['statement']}", "", f"**{record['verdict'].capitalize()}**: "]
        lines[-1] += f"{record['reason']}."
        lines += ["", f"- Criterion: {record['criterion']}.", f"- Method: {record['method']}."]
        lines += [f"- Scope: {record['scope']}."] if record["scope"] else []
        numbers = {name: value for name, value in record["numbers"].items() if not _missing(value)}
        if numbers:
            shown = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in numbers.items())
            lines.append(f"- Numbers: {shown}.")
        lines += _table(record["cells"])
    return "\n".join(lines) + "\n"


def _table(cells: list[dict[str, Any]]) -> list[str]:
    if not cells:
        return []
    names = [name for name in cells[0] if not all(_missing(cell[name]) for cell in cells)]
    lines = ["", "| " + " | ".join(NAMES.get(name, name.replace("_", " ")) for name in names) + " |"]
    lines.append("|" + "|".join("--:" if not isinstance(cells[0][name], str) else ":--" for name in names) + "|")
    return lines + ["| " + " | ".join(_number(cell[name]) for name in names) + " |" for cell in cells]


def _said(direction: str) -> str:
    return {"agrees": "agree", "disagrees": "disagree", "mixed": "mixed", "none": "–"}[direction]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if _missing(value):
        return "–"
    if float(value).is_integer() and abs(value) >= 1:
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
