"""Command-line flags from the schema of the settings, in both directions.

A rule writes the settings of its stage as flags (`to_flags`), the stage reads them back (`from_args`); both sides
and `--help` come from the same schema, so a setting is described once. Sections have dotted names such as
`pretrain` or `intermediate.cls_intel`; `seeding` is a section of one setting.
"""

import argparse
import copy
import functools
import shlex
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any

import yaml

from viny import validation

NONE = "none"  # how null and the empty list are written on a command line


@functools.cache
def schema() -> dict[str, Any]:
    """The schema of the whole config (JSON Schema), with references resolved."""
    text = resources.files("viny").joinpath("schemas/config.schema.yaml").read_text(encoding="utf-8")
    raw = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    definitions = raw.pop("$defs")
    return _resolve(raw, definitions)


def section_schema(section: str) -> dict[str, Any]:
    """The schema of one section as an object of settings; a single setting becomes an object of one.

    Raises:
        KeyError: there is no such section.
    """
    found = schema()
    for part in section.split("."):
        found = found["properties"][part]
    if "properties" not in found:
        return {"type": "object", "additionalProperties": False, "properties": {section: found}}
    return found


def add_flags(parser: argparse.ArgumentParser, *sections: str) -> None:
    """Give `parser` one flag for each setting of the sections, with description, choices and default."""
    for section in sections:
        group = parser.add_argument_group(f"settings: {section}")
        for key, spec in _flagged(section).items():
            group.add_argument(flag(key), dest=key, help=_help(spec), default=spec["default"], **_kind(spec))


def from_args(args: argparse.Namespace, section: str) -> dict[str, Any]:
    """The settings of a section as parsed by a parser that `add_flags` prepared.

    Raises:
        VinyError: a value is outside its range; the message names the flag and what is allowed.
    """
    flagged = _flagged(section)
    values = {key: plain(getattr(args, key), spec) for key, spec in flagged.items()}
    validation.check(values, {"type": "object", "properties": flagged}, name=lambda path: flag(str(path[0])))
    return values


def to_flags(values: Mapping[str, Any], section: str, without: Collection[str] = ()) -> str:
    """Settings of a section as shell text: every one explicit, in the order of the schema.

    Settings that no command has a flag for are left out, and those named in `without`; `values` may hold further keys.

    Raises:
        KeyError: a setting is missing in `values`.
    """
    return " ".join(_write(key, values[key], spec) for key, spec in _flagged(section).items() if key not in without)


def defaults(section: str) -> dict[str, Any]:
    """The default settings of a section."""
    return {key: copy.deepcopy(spec["default"]) for key, spec in section_schema(section)["properties"].items()}


def flag(key: str) -> str:
    """`learning_rate` -> `--learning-rate`."""
    return "--" + key.replace("_", "-")


def text(value: Any) -> str:
    """A value as it is written on a command line: `none`, `50,85`, `0.0001`, `adamw`."""
    if value is None or value == []:
        return NONE
    if isinstance(value, list | tuple):
        return ",".join(text(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)


def plain(value: Any, spec: dict[str, Any]) -> Any:
    """The value in the one type that its setting has, so that 0 and 0.0 are the same setting."""
    if isinstance(value, list | tuple):
        return [plain(item, spec.get("items", {})) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "number" in _types(spec):
            return float(value)
        if "integer" in _types(spec) and value == int(value):
            return int(value)
    return value


def _flagged(section: str) -> dict[str, Any]:
    return {k: s for k, s in section_schema(section)["properties"].items() if s.get("flag", True)}


def _write(key: str, value: Any, spec: dict[str, Any]) -> str:
    if "boolean" in _types(spec):
        return flag(key) if value else flag("no_" + key)
    return f"{flag(key)} {shlex.quote(text(plain(value, spec)))}"


def _kind(spec: dict[str, Any]) -> dict[str, Any]:
    """How argparse reads a setting."""
    if "enum" in spec:
        return {"choices": spec["enum"]}
    if "boolean" in _types(spec):
        return {"action": argparse.BooleanOptionalAction}
    return {"type": functools.partial(_read, spec=spec), "metavar": _metavar(spec)}


def _metavar(spec: dict[str, Any]) -> str:
    if "array" in _types(spec):
        return ",".join([_metavar(spec["items"])] * 2)
    return {"integer": "N", "number": "X"}.get(_types(spec)[0], "TEXT")


def _read(written: str, spec: dict[str, Any]) -> Any:
    types = _types(spec)
    if written == NONE and "array" in types:
        return []
    if written == NONE and "null" in types:
        return None
    if "array" in types:
        return [_read(item, spec["items"]) for item in written.split(",")]
    try:
        return {"integer": int, "number": float, "string": str}[types[0]](written)
    except ValueError as error:
        allowed = {"integer": "a whole number", "number": "a number"}[types[0]]
        raise argparse.ArgumentTypeError(f"{written!r} is not {allowed}") from error


def _types(spec: dict[str, Any]) -> list[str]:
    types = spec.get("type", "string")
    return types if isinstance(types, list) else [types]


def _help(spec: dict[str, Any]) -> str:
    default = spec["default"]
    shown = text(default) if not isinstance(default, bool) else ("yes" if default else "no")
    return f"{spec['description']} (default: {shown})".replace("%", "%%")


def _resolve(node: Any, definitions: dict[str, Any]) -> Any:
    """Replace `{$ref: "#/$defs/x", ...}` by the definition, overlaid with the keys beside the reference."""
    if isinstance(node, list):
        return [_resolve(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _resolve(value, definitions) for key, value in node.items()}
    reference = node.pop("$ref", None)
    if isinstance(reference, str):
        return _resolve(definitions[reference.removeprefix("#/$defs/")], definitions) | node
    return node
