"""Reading YAML without its traps: keys given twice, numbers that are not what they look like, endless aliases."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from viny.errors import VinyError

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000
MOST_DEPTH = 20
MOST_DIGITS = 30
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BOOLEAN = ("true", "false")


def read(path: Path) -> dict[str, Any]:
    """The settings in a YAML (or JSON) file, unchecked.

    Raises:
        VinyError: not there, too large, not YAML, a key given twice, a value that YAML reads as something else than it
            looks like, or not a mapping.
    """
    form = "JSON" if path.suffix == ".json" else "YAML"
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise VinyError(f"{path} has more than the {MOST_BYTES:,} bytes that a study file may have")
        text = content.decode("utf-8-sig")
        # YAML reads 1e-6 as text
        given = json.loads(text, object_pairs_hook=_different) if form == "JSON" else parse(text)
    except FileNotFoundError:
        raise VinyError(f"there is no config file {path}; name the study's with --configfile FILE") from None
    except OSError as error:
        raise VinyError(f"{path} cannot be read: {error.strerror}; name the study's YAML file") from None
    except RecursionError:
        raise VinyError(f"{path} is not valid {form}: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise VinyError(f"{path} is not UTF-8 text (its byte {error.start + 1}); save it as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, a huge number
        raise VinyError(f"{path} is not valid {form}: {said(error)}") from None
    if not isinstance(given, dict | None):
        raise VinyError(f"{path} holds {given!r}, not settings of the form `key: value`")
    return given or {}


def parse(text: str) -> Any:
    """The value that a YAML text means; raises yaml.YAMLError or ValueError."""
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.SafeLoader):
    """Refuses what YAML 1.1 would silently take for something else, and bounds depth and size."""

    def get_single_node(self) -> Any:
        """The document, after its aliases have been followed as far as is allowed."""
        node = super().get_single_node()
        self._values = 0
        self._bound(node, 0)
        return node

    def _bound(self, node: Any, depth: int) -> None:
        self._values += 1
        if depth > MOST_DEPTH:
            raise _problem("is nested too deeply, or an alias refers to itself", node)
        if self._values > MOST_VALUES:
            raise _problem(f"holds more than {MOST_VALUES:,} values once its aliases are followed", node)
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._bound(item, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            for key, item in node.value:
                self._bound(key, depth + 1)
                self._bound(item, depth + 1)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A mapping of different keys."""
        seen = set()
        for key, _ in getattr(node, "value", []):
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _problem(f"{key.value!r} is given twice", key)
            seen.add(getattr(key, "value", None) if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def _different(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of different keys."""
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"{twice[0]!r} is given twice")
    return dict(pairs)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > MOST_DIGITS:
        raise _problem(f"a number of {len(node.value):,} digits is larger than any setting", node)
    if not _DECIMAL.fullmatch(node.value):
        digits = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", node.value)
        advice = f"write {digits}" if _DECIMAL.fullmatch(digits) else "write a plain decimal number"
        raise _problem(f"{node.value} is no plain decimal number ({advice}, or put text in quotes)", node)
    return int(node.value)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    if ":" in node.value or "_" in node.value:
        raise _problem(f"{node.value} is no plain decimal number (write one, or put text in quotes)", node)
    return loader.construct_yaml_float(node)


def _boolean(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    if node.value.lower() not in _BOOLEAN:
        raise _problem(f"{node.value} means true or false in YAML (write that, or put text in quotes)", node)
    return node.value.lower() == "true"


def said(error: Exception) -> str:
    """What is wrong with a YAML text, and where."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        found = f"{error.context}, " if (error.context or "").startswith("found") else ""  # not `while parsing ...`
        return f"{found}{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())


def _problem(text: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


for _tag, _read in (("int", _integer), ("float", _number), ("bool", _boolean)):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _read)
