"""All settings as a page to read and as a JSON Schema for editors, both made from the models.

viny settings             print the page
viny settings --schema    print the schema
viny settings --write     bring docs/settings.md and workflow/schemas/config.schema.json of this checkout up to date
"""

import argparse
import json
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from viny import logs
from viny.config.sections import INTERMEDIATE, Config, Section
from viny.errors import VinyError, command
from viny.files import write_text

ROOT = Path(__file__).parents[3]
PAGE, SCHEMA = "docs/settings.md", "workflow/schemas/config.schema.json"
HEADER = "| setting | default | allowed | meaning |\n|---|---|---|---|"
_BOUNDS = {annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤", annotated_types.Lt: "<"}
_WORDS = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}


def schema() -> str:
    """The JSON Schema of a study file."""
    made = Config.model_json_schema()
    task = made["$defs"]["Intermediate"]
    made["$defs"]["Predeclared"] = {key: value for key, value in task.items() if key != "required"}
    predeclared = {name: {"$ref": "#/$defs/Predeclared"} for name in INTERMEDIATE}
    section = made["properties"]["intermediate"]
    section["additionalProperties"] = next(iter(section.pop("patternProperties").values()))
    section["properties"] = predeclared
    made |= {"title": "viny study", "description": "Every setting of a study; what is left out is as in the paper."}
    return json.dumps(made, indent=1) + "\n"


def page() -> str:
    """All settings as Markdown: a table for each section, in the order of the study file."""
    lines = ["# Settings", "", "Made by `viny settings --write` from the models in `src/viny/config/sections.py`.", ""]
    lines += ["A study file needs to say only where it differs from these defaults, which are the paper's.", ""]
    lines += ["## The study", "", HEADER, *_rows(Config, "", skip_sections=True), ""]
    for name, field in Config.model_fields.items():
        shown = _section_of(field.annotation)
        if shown is None:
            continue
        prefix = f"{name}.NAME." if _is_mapping(field.annotation) else f"{name}."
        lines += [f"## `{name}`", "", str(field.description or shown.__doc__).strip(), ""]
        if name == "intermediate":
            lines += [*_predeclared(), ""]
        lines += [HEADER, *_rows(shown, prefix), ""]
    return "\n".join(lines)


def _rows(model: type[BaseModel], prefix: str, skip_sections: bool = False) -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = _section_of(field.annotation)
        if section is not None:
            if skip_sections:
                continue
            inner = f"{prefix}{name}.NAME." if _is_mapping(field.annotation) else f"{prefix}{name}."
            yield f"| **`{inner.rstrip('.')}`** | | | {field.description or section.__doc__} |"
            yield from _rows(section, inner)
        else:
            default = "" if field.is_required() else f"`{written(field.default)}`"
            yield f"| `{prefix}{name}` | {default} | {allowed(field)} | {field.description} |"


def _predeclared() -> Iterator[str]:
    yield "Predeclared, as in the paper and its second version:"
    yield ""
    for name, settings in INTERMEDIATE.items():
        yield f"- `{name}`: " + ", ".join(f"`{key}: {written(value)}`" for key, value in settings.items())


def allowed(field: FieldInfo) -> str:
    """What a setting may be, in few words."""
    return _allowed(field.annotation, field.metadata)


def _allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _allowed(arguments[0], annotation.__metadata__)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        words = [_allowed(each, metadata) for each in arguments if each is not type(None)]
        return " or ".join(dict.fromkeys(words)) + (", or null" if type(None) in arguments else "")
    if origin in (tuple, list):
        if len(arguments) == 2 and arguments[1] is not Ellipsis:
            return f"two of {_allowed(arguments[0])}"
        return f"list of {_allowed(arguments[0])}"
    if origin is dict:
        return "sections by name"
    bounds: list[str] = []
    for item in metadata:
        for each in getattr(item, "metadata", [item]):
            bounds += [
                f"{sign} {getattr(each, kind.__name__.lower())}"
                for kind, sign in _BOUNDS.items()
                if isinstance(each, kind)
            ]
    return " ".join([_WORDS.get(annotation, "any"), ", ".join(bounds)]).strip()


def written(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, float):
        return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:g}"
    return str(value)


def _section_of(annotation: Any) -> type[Section] | None:
    """The section that an annotation holds, directly or by name."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for each in get_args(annotation) if (found := _section_of(each))), None)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command `viny settings`."""
    parser = argparse.ArgumentParser(
        prog="viny settings", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema instead of the page")
    parser.add_argument("--write", action="store_true", help="write both files of this checkout")
    args = parser.parse_args(argv)
    logs.setup()
    if args.write:
        if not (ROOT / "Snakefile").is_file():
            raise VinyError(f"{ROOT} is no checkout of viny; print the page or the schema instead")
        write_text(ROOT / PAGE, page())
        write_text(ROOT / SCHEMA, schema())
    else:
        print(schema() if args.schema else page(), end="")
    return 0
