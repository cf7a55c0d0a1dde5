"""The README's table of settings, made from the schema.

python -m viny.settings_table                     print it
python -m viny.settings_table --write README.md   put it between the marks in that file
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from viny import settings
from viny.errors import VinyError, command

BEGIN, END = "<!-- settings -->", "<!-- /settings -->"
HEADER = "| setting | default | allowed | meaning |\n|---|---|---|---|"
_ALTERNATIVES = "intermediate"  # a section whose parts have the same settings, shown in one row each
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true`, `false`",
    "object": "sections by name",
}


def table() -> str:
    """All settings as Markdown: one row each, in the order of the schema."""
    return "\n".join([HEADER, *_rows(settings.schema()["properties"], "")])


def insert(text: str, made: str) -> str:
    """`text` with `made` between the marks.

    Raises:
        VinyError: the marks are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise VinyError(f"there are no lines {BEGIN} and {END} to put the table between; add them")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def _rows(properties: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, spec in properties.items():
        name = f"{prefix}{key}"
        if key == _ALTERNATIVES and not prefix:
            yield from _alternatives(name, spec["properties"])
        elif "properties" in spec:
            default = f"`{_written(spec['default'])}`" if "default" in spec else ""
            yield f"| **`{name}`** | {default} | | {spec['description']} |"
            yield from _rows(spec["properties"], f"{name}.")
        else:
            yield f"| `{name}` | `{_written(spec['default'])}` | {allowed(spec)} | {spec['description']} |"


def _alternatives(name: str, parts: dict[str, Any]) -> Iterator[str]:
    """Rows of sections with the same settings, each with the defaults of all."""
    for part, spec in parts.items():
        yield f"| **`{name}.{part}`** | | | {spec['description']} |"
    for key, spec in next(iter(parts.values()))["properties"].items():
        defaults = " / ".join(f"`{_written(part['properties'][key]['default'])}`" for part in parts.values())
        yield f"| `{name}.*.{key}` | {defaults} | {allowed(spec)} | {spec['description']} |"


def allowed(spec: dict[str, Any]) -> str:
    """What a setting may be, in few words."""
    if "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec["enum"])
    types = spec["type"] if isinstance(spec["type"], list) else [spec["type"]]
    if "array" in types:
        return f"list of {allowed(spec['items'])}" if "properties" not in spec["items"] else "list"
    words = " or ".join(_KINDS[kind] for kind in types if kind != "null") + _range(spec)
    return f"{words}, or null" if "null" in types else words


def _range(spec: dict[str, Any]) -> str:
    bounds = [("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")]
    found = ", ".join(f"{sign} {spec[bound]}" for bound, sign in bounds if bound in spec)
    return f" {found}" if found else ""


def _written(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, float):
        return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:g}"
    return str(value)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.settings_table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="file to bring up to date")
    args = parser.parse_args(arguments)
    if args.write:
        args.write.write_text(insert(args.write.read_text(encoding="utf-8"), table()), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    sys.exit(main())
