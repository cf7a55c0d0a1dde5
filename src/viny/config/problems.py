"""What is wrong with a study file, in plain words: the setting, its value and what is allowed."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from viny.config.cells import cells_of, held_back, matches, product
from viny.config.sections import (
    ENCODER,
    FOLDER,
    NAME,
    NONE,
    PATH,
    SETS,
    TASK,
    Config,
    Finetuning,
    Intermediate,
    Pretraining,
    Section,
)
from viny.errors import did_you_mean

EXISTING = {"imagenet": 1_281_167, "pets": 7349}  # images of ImageNet-1K train, and of both parts of Oxford-IIIT Pet
PUBLISHED = "published"  # the folder of the paper's own numbers among the results
MOST_CELLS = 100_000
_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
# Folders that are not free for results and stores.
_TAKEN = {"logs": "where logs are written", ".snakemake": "where Snakemake keeps its own files"}
_SHOWN = 200  # characters of a value
# What to say of a value, by pydantic's name of the problem, or by the pattern that it does not match.
_SAID = {
    **dict.fromkeys(("int_type", "int_from_float"), "is not a whole number"),
    **dict.fromkeys(("list_type", "tuple_type"), "is not a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "is not a section with keys"),
    "float_type": "is not a number",
    "string_type": "is not text",
    "bool_type": "is not true or false",
    "none_required": "is not null",
    "greater_than_equal": "is too small, at least {ge:g} is allowed",
    "less_than_equal": "is too large, at most {le:g} is allowed",
    "greater_than": "is too small, it must be more than {gt:g}",
    "less_than": "is too large, it must be less than {lt:g}",
    "too_short": "has length {actual_length}, at least {min_length} is allowed",
    "too_long": "has length {actual_length}, at most {max_length} is allowed",
    "string_too_long": "is too long, at most {max_length} characters are allowed",
    NAME: "is not allowed, only letters, digits, `.`, `_` and `-` are, with a letter or digit first",
    ENCODER: "is not allowed, only letters, digits, `.`, `_` and `-` are, with a letter first",
    TASK: "is not allowed, only small letters, digits and `_` are, with a letter first",
    FOLDER: "is not allowed, only letters, digits, `/`, `.`, `_`, `-`, `@`, `+` and `=` are, and not `-` first",
    PATH: "is not allowed, it must not be empty or have line breaks and other control characters",
    "finite_number": "is not a finite number",
    "value_error": "{error}",
}


def explain(error: ValidationError, model: type[BaseModel], at: Sequence[str | int] = ()) -> Iterator[str]:
    """One line for each problem that pydantic found in a section at the path `at`."""
    found = error.errors(include_url=False)
    for item in found:
        path = [*at, *(part for part in item["loc"] if part != "[key]")]
        context, kind, value = item.get("ctx", {}), item["type"], item["input"]
        known = list(_fields(model, item["loc"][:-1]))
        match kind:
            case "extra_forbidden":
                yield f"{dotted(path)}: unknown key{_place(str(path[-1]), known)}; known here: {', '.join(known)}"
            case "invalid_key":
                yield f"{path[-1]}: unknown key, keys are text; known here: {', '.join(known)}"
            case "missing":
                yield f"{dotted(path)}: is missing"
            case "int_parsing_size":
                yield f"{dotted(path)}: is too large for any setting"
            case "literal_error":
                choices = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
                near = did_you_mean(value, choices)
                yield f"{dotted(path)}: {_shown(value)} is not one of {', '.join(choices)}{near}"
            case "too_short" if any(item["loc"] == other["loc"][:-1] for other in found):
                pass  # pydantic counts the valid items only, and the others are named
            case _:
                problem = context.get("pattern", kind)
                said = _SAID[problem].format(**context) if problem in _SAID else item["msg"]
                yield f"{dotted(path)}: {_shown(value)} {said}{_hint(value) if kind.endswith('_type') else ''}"


def dotted(path: Sequence[str | int]) -> str:
    """`["grid", "seeds", 0]` -> `grid.seeds[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return text or "config"


def contradictions(config: Config) -> Iterator[str]:
    """Settings that are valid one by one and do not go together."""
    grid = config.grid
    cells = len(grid.pretrain) * len(grid.intermediate) * len(grid.downstream) * len(grid.seeds)
    if cells > MOST_CELLS:
        yield f"grid: {cells:,} cells are more than the {MOST_CELLS:,} that a study may have; split it into several"
        return
    yield from _grid(config)
    yield from _names(config)
    yield from _model(config)
    yield from _schedules(config)
    yield from _sizes(config)
    yield from _choices(config)


def _grid(config: Config) -> Iterator[str]:
    grid, everything = config.grid, list(product(config.grid))
    axes = {name: getattr(grid, name) for name in ("pretrain", "intermediate", "downstream", "seeds")}
    for name, values in axes.items():
        twice = [value for number, value in enumerate(values) if value in values[:number]]
        if twice:
            yield f"grid.{name}: {list(values)} names {twice[0]!r} more than once, each value may be given once"
    for number, entry in enumerate(grid.exclude):
        if not any(matches(cell, entry) for cell in everything):
            shown = "; ".join(f"{name} {_listed(values)}" for name, values in axes.items())
            yield f"grid.exclude[{number}]: {entry} matches no cell of the grid, which has {shown}"
    if not any(True for _ in cells_of(grid)):
        yield f"grid.exclude: {list(grid.exclude)} leaves no cell of {len(everything):,}; remove an entry"


def _names(config: Config) -> Iterator[str]:
    """Names of tasks, encoders and data sets that lead nowhere."""
    tasks = [NONE, *config.intermediate]
    for name in config.grid.intermediate:
        if name not in tasks:
            yield f"grid.intermediate: {name!r} is not one of {', '.join(tasks)}{did_you_mean(name, tasks)}"
    if NONE in config.intermediate:
        yield f"intermediate.{NONE}: is the word for no task; choose another name"
    for value in config.grid.pretrain:
        if isinstance(value, str) and value not in config.encoders:
            known = ", ".join(config.encoders) or "none are declared"
            hint = did_you_mean(value, config.encoders)
            yield f"grid.pretrain: {value!r} is neither a number nor a name from `encoders` ({known}){hint}"
    for name, encoder in config.encoders.items():
        if encoder.file is None and encoder.timm is None:
            yield f"encoders.{name}: needs `file`, `timm` or both"
    for name, settings in config.stages.items():
        if settings.images not in config.data.sets:
            sets = ", ".join(config.data.sets) + did_you_mean(settings.images, config.data.sets)
            yield f"{name}.images: {settings.images!r} is no data set; known in data.sets: {sets}"
        elif config.data.procedural and settings.images not in SETS:
            yield f"{name}.images: {settings.images!r} is real, but data.procedural generates the paper's sets only"


def _model(config: Config) -> Iterator[str]:
    size, patch, pixels = config.model.image_size, config.model.patch_size, config.data.store_pixels
    ratio = config.pretrain.mask_ratio
    if config.model.timm is None and size % patch:
        yield f"model.image_size: {size} is not a multiple of model.patch_size, {patch}"
    elif config.model.timm is None and round(ratio * (size // patch) ** 2) < 1:
        yield f"pretrain.mask_ratio: {ratio} masks none of the {(size // patch) ** 2} patches"
    if pixels < size:
        yield f"data.store_pixels: {pixels} is smaller than model.image_size, {size}; stored images would be enlarged"
    for key in ("crop_scale", "crop_ratio"):
        smallest, largest = getattr(config.pretrain, key)
        if smallest <= 0 or largest <= 0 or (key == "crop_scale" and largest > 1):
            allowed = "more than 0 and at most 1" if key == "crop_scale" else "more than 0"
            yield f"pretrain.{key}: [{smallest}, {largest}] is out of range, {allowed} is allowed"
        if smallest > largest:
            yield f"pretrain.{key}: [{smallest}, {largest}] begins with the larger value, the smaller one comes first"


def _schedules(config: Config) -> Iterator[str]:
    for name, settings in config.stages.items():
        milestones = list(settings.milestones)
        if any(one >= other for one, other in itertools.pairwise(milestones)):
            yield f"{name}.milestones: {milestones} does not increase"
        if milestones and max(milestones) >= settings.epochs:
            yield (
                f"{name}.milestones: {milestones} reaches beyond {name}.epochs, {settings.epochs}; each must be less "
                "than that, [] is for a constant learning rate"
            )


def _sizes(config: Config) -> Iterator[str]:
    """More images than a data set of the paper has; how many others have is only known when they are read."""
    wanted = {
        "grid.pretrain": ("pretrain", max((size for size in config.grid.pretrain if isinstance(size, int)), default=0)),
        "grid.downstream": ("finetune", max(config.grid.downstream)),
    }
    for task in config.grid.intermediate:
        if task in config.intermediate:
            wanted[f"intermediate.{task}.count"] = f"intermediate.{task}", config.intermediate[task].count or 1
    if config.geometry.enabled:
        wanted["geometry.images"] = "finetune", config.geometry.images
    for name, (section, images) in wanted.items():
        origin = config.stages[section].images
        there = None
        if config.data.procedural:
            there = getattr(config.data.procedural, origin) if origin in SETS else None
        elif origin in config.data.sets:
            there = EXISTING.get(config.data.sets[origin].layout)
        tests = 0 if origin == "intel" else held_back(config, section) or 0
        if images and there is not None and images + tests > there:
            yield f"{name}: {images:,} images and {tests:,} to test on are more than the {there:,} that {origin} has"


def _choices(config: Config) -> Iterator[str]:
    if config.study == PUBLISHED:
        yield f"study: {PUBLISHED} is the name of the paper's own numbers; choose another"
    if os.path.realpath(config.results) == os.path.realpath(config.stores):
        yield f"stores: {config.stores} is the folder of the results as well; choose another"
    for key, folder in (("results", config.results), ("stores", config.stores)):
        if (first := folder.partition("/")[0]) in _TAKEN:
            yield f"{key}: `{first}` is {_TAKEN[first]}; choose another folder"
    if config.finetune.test_set == "moving":
        shared = [t for t in config.grid.intermediate if t in config.intermediate]
        tasks = [task for task in shared if config.intermediate[task].images == config.finetune.images]
        if tasks:
            yield (
                f"finetune.test_set: moving does not go with {_listed(tasks)} in grid.intermediate, which would be "
                "trained on images that are tested later"
            )
    if config.data.download and config.data.procedural:
        yield "data.download: true concerns real images, but data.procedural generates them; remove one of the two"
    cells = cells_of(config.grid)
    if config.geometry.enabled and not any(cell.pretrain != 0 or cell.intermediate != NONE for cell in cells):
        yield "geometry.enabled: true measures encoders, but the grid trains none; add a size to grid.pretrain"


def _fields(model: type[BaseModel], path: Sequence[str | int]) -> Mapping[str, Any]:
    """The keys known at a path below a model."""
    found: Any = model
    for part in path:
        if isinstance(part, int) or not (isinstance(found, type) and issubclass(found, BaseModel)):
            continue
        field = found.model_fields.get(part)
        annotation = field.annotation if field else None
        sections = [each for each in _types(annotation) if isinstance(each, type) and issubclass(each, Section)]
        found = sections[0] if sections else found
    return found.model_fields


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _types(inner)


def _sections_with(key: str) -> Iterator[str]:
    """The sections of a study file that know a key."""
    stages = {"pretrain": Pretraining, "intermediate": Intermediate, "finetune": Finetuning}
    for name, field in Config.model_fields.items():
        for section in _types(stages.get(name, field.annotation)):
            if isinstance(section, type) and issubclass(section, Section) and key in section.model_fields:
                yield name


def _place(key: str, known: Sequence[str]) -> str:
    elsewhere = [f"`{section}`" for section in dict.fromkeys(_sections_with(key))]
    return did_you_mean(key, known) or (f" (a key of {', '.join(elsewhere)})" if elsewhere else "")


def _hint(value: Any) -> str:
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        mantissa, exponent = re.split("[eE]", value)
        mantissa += "" if "." in mantissa else ".0"
        exponent = exponent if exponent[0] in "+-" else f"+{exponent}"
        return f"; YAML reads `{value}` as text, write `{mantissa}e{exponent}`"
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?", value):
        return "; it is text here, since it was in quotes or inside a quoted value of --config"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 63:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
