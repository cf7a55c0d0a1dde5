"""Say in plain words what a schema finds wrong: the setting, its value and what is allowed."""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from viny.errors import VinyError

_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_SHOWN = 200  # characters of a value
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a section with keys",
    "null": "null",
}


def dotted(path: Sequence[str | int]) -> str:
    """`["grid", "seeds", 0]` -> `grid.seeds[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def check(
    values: Any,
    schema: dict[str, Any],
    name: Callable[[Sequence[str | int]], str] = dotted,
    places: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Check `values` against a schema without references.

    Args:
        name: how to call the setting at a path.
        places: the sections in which a key is known, to point to the right one.

    Raises:
        VinyError: one message with every problem, a line each.
    """
    import jsonschema

    problems = [f"{name(path)}: {value} is not a finite number" for path, value in _not_finite(values)]
    fail([f"{name(path)}: a number of {bits:,} bits is too large for any setting" for path, bits in _huge(values)])
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(values), key=lambda e: list(map(str, e.path)))
    fail(problems + [_explain(error, name, places or {}) for error in errors])


def fail(problems: Sequence[str]) -> None:
    """Raise one `VinyError` with all problems, if there are any."""
    if problems:
        raise VinyError("\n  ".join(problems))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` (did you mean x?)`, or nothing if no known word is near."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _explain(error: Any, name: Callable[[Sequence[str | int]], str], places: Mapping[str, Sequence[str]]) -> str:
    path = list(error.absolute_path)
    where = name(path) if path else "config"
    value, rule = error.instance, error.validator_value
    written = repr(value)
    said = f"{where}: {written if len(written) <= _SHOWN else written[:_SHOWN] + '...'}"
    match error.validator:
        case "additionalProperties":
            known = list(error.schema["properties"])
            unknown = [key for key in value if key not in known]
            return "\n  ".join(
                f"{name([*path, str(key)])}: unknown key{_place(key, known, places)}; known here: {', '.join(known)}"
                for key in unknown
            )
        case "type":
            allowed = " or ".join(_TYPES[kind] for kind in ([rule] if isinstance(rule, str) else rule))
            return f"{said} is not {allowed}{_hint(value)}"
        case "enum":
            return f"{said} is not one of {', '.join(map(str, rule))}{did_you_mean(value, rule)}"
        case "minimum":
            return f"{said} is too small, at least {rule} is allowed"
        case "maximum":
            return f"{said} is too large, at most {rule} is allowed"
        case "exclusiveMinimum":
            return f"{said} is too small, it must be more than {rule}"
        case "exclusiveMaximum":
            return f"{said} is too large, it must be less than {rule}"
        case "uniqueItems":
            twice = [item for i, item in enumerate(value) if item in value[:i]]
            named = repr(twice[0]) if twice else "a value"  # jsonschema finds more values equal than Python
            return f"{said} names {named} more than once, each value may be given once"
        case "minItems" | "maxItems" | "minProperties" | "minLength":
            bound = "at most" if error.validator == "maxItems" else "at least"
            return f"{said} has length {len(value)}, {bound} {rule} is allowed"
        case "maxLength":
            return f"{said} is too long, at most {rule} characters are allowed"
        case "pattern":
            return f"{said} holds a character that is not allowed, letters, digits, `.`, `_` and `-` are safe"
    return f"{said}: {error.message}"


def _place(key: Any, known: Sequence[str], places: Mapping[str, Sequence[str]]) -> str:
    near = did_you_mean(key, known)
    elsewhere = [f"`{section}`" for section in places.get(key, [])]
    return near or (f" (a key of {', '.join(elsewhere)})" if elsewhere else "")


def _not_finite(node: Any, path: tuple = ()) -> Iterator[tuple[tuple, float]]:
    """NaN and infinities, which pass every range of a schema."""
    if isinstance(node, float) and not math.isfinite(node):
        yield path, node
    elif isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _not_finite(value, (*path, key))


def _huge(node: Any, path: tuple = ()) -> Iterator[tuple[tuple, int]]:
    """Whole numbers that no other type can hold."""
    if isinstance(node, int) and node.bit_length() > 63:
        yield path, node.bit_length()
    elif isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _huge(value, (*path, key))


def _hint(value: Any) -> str:
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        mantissa, exponent = re.split("[eE]", value)
        mantissa += "" if "." in mantissa else ".0"
        exponent = exponent if exponent[0] in "+-" else f"+{exponent}"
        return f"; YAML reads `{value}` as text, write `{mantissa}e{exponent}`"
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?", value):
        return "; write it without quotes"
    return ""
