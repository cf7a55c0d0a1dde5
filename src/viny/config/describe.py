"""`viny settings`: all settings as a page to read, or as a JSON Schema for editors."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from viny.commands.parser import Parser
from viny.config.sections import INTERMEDIATE, Config

HEADER = "| setting | default | allowed | meaning |\n|---|---|---|---|"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}

Node = dict[str, Any]  # of a JSON Schema


def schema() -> str:
    """The JSON Schema of a study file."""
    made = Config.model_json_schema()
    task = made["$defs"]["Intermediate"]
    made["$defs"]["Predeclared"] = {key: value for key, value in task.items() if key != "required"}
    section = made["properties"]["intermediate"]
    section["additionalProperties"] = next(iter(section.pop("patternProperties").values()))
    section["properties"] = {name: {"$ref": "#/$defs/Predeclared"} for name in INTERMEDIATE}
    made |= {"title": "viny study", "description": "Every setting of a study; what is left out is as in the paper."}
    return json.dumps(made, indent=1) + "\n"


def page() -> str:
    """All settings as Markdown: a table for each section, in the order of the study file."""
    whole = Config.model_json_schema()
    sections, fields = whole["$defs"], whole["properties"]
    plain = {name: field for name, field in fields.items() if not _section(field, sections)}
    lines = ["# Settings", "", "Made by `viny settings` from the models in `src/viny/config/sections.py`.", ""]
    lines += ["A study file needs to say only where it differs from these defaults, which are the paper's.", ""]
    lines += ["## The study", "", HEADER, *_rows({"properties": plain}, "", sections), ""]
    for name, field in fields.items():
        section = _section(field, sections)
        if section:
            lines += [f"## `{name}`", "", field.get("description", section["description"]), ""]
            if name == "intermediate":
                lines += ["Predeclared, as in the paper and its second version:", ""]
                lines += [f"- `{task}`: {_settings(given)}" for task, given in INTERMEDIATE.items()] + [""]
            lines += [HEADER, *_rows(section, _prefix(name, field), sections), ""]
    return "\n".join(lines)


def _rows(section: Node, prefix: str, sections: Node) -> Iterator[str]:
    for name, field in section["properties"].items():
        inner = _section(field, sections)
        if inner:
            below = _prefix(f"{prefix}{name}", field)
            yield f"| **`{below.rstrip('.')}`** | | | {field.get('description', inner['description'])} |"
            yield from _rows(inner, below, sections)
        else:
            default = f"`{_written(field['default'])}`" if "default" in field else ""
            yield f"| `{prefix}{name}` | {default} | {_allowed(field)} | {field['description']} |"


def _section(field: Node, sections: Node) -> Node | None:
    """The section that a setting holds, directly or by name."""
    named = [*field.get("patternProperties", {}).values(), *field.get("anyOf", ())]
    found = next((node["$ref"] for node in (field, *named) if "$ref" in node), None)
    return sections[found.removeprefix("#/$defs/")] if found else None


def _prefix(name: str, field: Node) -> str:
    return f"{name}.NAME." if "patternProperties" in field else f"{name}."


def _allowed(node: Node) -> str:
    """What a setting may be, in few words."""
    if "anyOf" in node:
        words = [_allowed(each) for each in node["anyOf"] if each.get("type") != "null"]
        return " or ".join(words) + (", or null" if len(words) < len(node["anyOf"]) else "")
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "prefixItems" in node:
        return f"two of {_allowed(node['prefixItems'][0])}"
    if "items" in node:
        return f"list of {_allowed(node['items'])}"
    if node["type"] == "object":
        return "sections by name"
    bounds = ", ".join(f"{sign} {node[bound]}" for bound, sign in _BOUNDS.items() if bound in node)
    return f"{_WORDS[node['type']]} {bounds}".strip()


def _settings(given: Node) -> str:
    return ", ".join(f"`{key}: {_written(value)}`" for key, value in given.items())


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def parser() -> Parser:
    """The command line of `viny settings`."""
    made = Parser("settings", "Print every setting with its meaning, range and default.", "", "--schema")
    made.add_argument("--schema", action="store_true", help="as JSON Schema, for editors and scripts")
    return made


def main(argv: Sequence[str]) -> int:
    """The command `viny settings`."""
    args = parser().parse_args(argv)
    print(schema() if args.schema else page(), end="")
    return 0
