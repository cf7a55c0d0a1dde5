"""What is wrong with a study file, in plain words: the setting, its value and what is allowed."""

import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from viny.config.sections import (
    ENCODER,
    FOLDER,
    NAME,
    NONE,
    PATH,
    TASK,
    Config,
    Finetuning,
    Intermediate,
    Pretraining,
    Section,
    Training,
)
from viny.errors import did_you_mean

PETS_IMAGES = 7349  # Oxford-IIIT Pet, trainval and test together
IMAGENET_IMAGES = 1281167  # ImageNet-1K train
PUBLISHED = "published"  # the folder of the paper's own numbers among the results
_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
MOST_CELLS = 100_000
_CHARACTERS = "only letters, digits, `.`, `_` and `-` are"
_ALLOWED = {
    NAME: f"{_CHARACTERS}, with a letter or digit first",
    ENCODER: f"{_CHARACTERS}, with a letter first",
    TASK: "only small letters, digits and `_` are, with a letter first",
    FOLDER: "only letters, digits, `/`, `.`, `_`, `-`, `@`, `+` and `=` are, and not `-` first",
    PATH: "it must not be empty or have line breaks and other control characters",
}
# Folders that are not free for results and stores.
_TAKEN = {"logs": "where logs are written", ".snakemake": "where Snakemake keeps its own files"}
_SHOWN = 200  # characters of a value
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section with keys",
    "model_type": "a section with keys",
    "model_attributes_type": "a section with keys",
    "none_required": "null",
}


def explain(error: ValidationError, model: type[BaseModel], at: Sequence[str | int] = ()) -> Iterator[str]:
    """One line for each problem that pydantic found in a section at the path `at`."""
    found = error.errors(include_url=False)
    for item in found:
        path = [*at, *(part for part in item["loc"] if part != "[key]")]
        said = f"{dotted(path)}: {_shown(item['input'])}"
        context, kind = item.get("ctx", {}), item["type"]
        match kind:
            case "extra_forbidden":
                known = list(_fields(model, item["loc"][:-1]))
                yield f"{dotted(path)}: unknown key{_place(str(path[-1]), known)}; known here: {', '.join(known)}"
            case "invalid_key":
                known = list(_fields(model, item["loc"][:-1]))
                yield f"{path[-1]}: unknown key, keys are text; known here: {', '.join(known)}"
            case "missing":
                yield f"{dotted(path)}: is missing"
            case "literal_error":
                choices = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
                yield f"{said} is not one of {', '.join(choices)}{did_you_mean(item['input'], choices)}"
            case "greater_than_equal":
                yield f"{said} is too small, at least {context['ge']:g} is allowed"
            case "less_than_equal":
                yield f"{said} is too large, at most {context['le']:g} is allowed"
            case "greater_than":
                yield f"{said} is too small, it must be more than {context['gt']:g}"
            case "less_than":
                yield f"{said} is too large, it must be less than {context['lt']:g}"
            case "too_short" if any(item["loc"] == other["loc"][:-1] for other in found):
                pass  # pydantic counts the valid items only, and the others are named
            case "too_short" | "too_long":
                least = kind == "too_short"
                bound = f"at least {context['min_length']}" if least else f"at most {context['max_length']}"
                yield f"{said} has length {context['actual_length']}, {bound} is allowed"
            case "string_too_long":
                yield f"{said} is too long, at most {context['max_length']} characters are allowed"
            case "string_pattern_mismatch":
                yield f"{said} is not allowed, {_ALLOWED[context['pattern']]}"
            case "finite_number":
                yield f"{said} is not a finite number"
            case "int_parsing_size":
                yield f"{dotted(path)}: is too large for any setting"
            case "value_error":
                yield f"{said} {context['error']!s}"
            case _ if kind in _TYPES:
                yield f"{said} is not {_TYPES[kind]}{_hint(item['input'])}"
            case _:
                yield f"{said}: {item['msg']}"


def dotted(path: Sequence[str | int]) -> str:
    """`["grid", "seeds", 0]` -> `grid.seeds[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return text or "config"


def contradictions(config: Config) -> Iterator[str]:
    """Settings that are valid one by one and do not go together."""
    cells = math.prod(len(getattr(config.grid, axis)) for axis in ("pretrain", "intermediate", "downstream", "seeds"))
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
    from viny.grid import Cell, cells_of, exclusion

    grid = config.grid
    axes = {
        "pretrain": grid.pretrain,
        "intermediate": grid.intermediate,
        "downstream": grid.downstream,
        "seed": grid.seeds,
    }
    for name, values in axes.items():
        twice = [value for number, value in enumerate(values) if value in values[:number]]
        if twice:
            key = "seeds" if name == "seed" else name
            yield f"grid.{key}: {list(values)} names {twice[0]!r} more than once, each value may be given once"
    everything = list(itertools.product(*axes.values()))
    for number, entry in enumerate(grid.exclude):
        unknown = [key for key in entry if key not in Cell._fields]
        if unknown or not entry:
            known = ", ".join(Cell._fields)
            what = f"unknown key{did_you_mean(unknown[0], Cell._fields)}" if unknown else "names no axis"
            yield f"grid.exclude[{number}]{'.' + str(unknown[0]) if unknown else ''}: {what}; known here: {known}"
            return
        odd = [value for value in entry.values() if value == [] or any(map(_is_odd, _values(value)))]
        if odd:
            yield f"grid.exclude[{number}]: {odd[0]!r} is neither a value nor a list of values"
            return
        if not any(all(place[axis] in values for axis, values in exclusion(entry)) for place in everything):
            shown = "; ".join(f"{axis} {_listed(values)}" for axis, values in axes.items())
            yield f"grid.exclude[{number}]: {entry} matches no cell of the grid, which has {shown}"
    if not any(True for _ in cells_of(grid)):
        yield f"grid.exclude: {list(grid.exclude)} leaves no cell of {len(everything):,}; remove an entry"


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_odd(value: Any) -> bool:
    return not isinstance(value, int | float | str)


def _names(config: Config) -> Iterator[str]:
    """Tasks, encoders and data sets that are named, and are there."""
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
    sections: dict[str, Training] = {"pretrain": config.pretrain, "finetune": config.finetune}
    sections |= {f"intermediate.{name}": settings for name, settings in config.intermediate.items()}
    for name, settings in sections.items():
        if settings.images not in config.data.sets:
            sets = ", ".join(config.data.sets) + did_you_mean(settings.images, config.data.sets)
            yield f"{name}.images: {settings.images!r} is no data set; known in data.sets: {sets}"
        elif config.data.procedural and settings.images not in ("imagenet", "intel", "pets"):
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
    tasks = {f"intermediate.{name}": settings for name, settings in config.intermediate.items()}
    for name, settings in {"pretrain": config.pretrain, **tasks, "finetune": config.finetune}.items():
        milestones = list(settings.milestones)
        if any(one >= other for one, other in itertools.pairwise(milestones)):
            yield f"{name}.milestones: {milestones} does not increase"
        if milestones and max(milestones) >= settings.epochs:
            yield (
                f"{name}.milestones: {milestones} reaches beyond {name}.epochs, {settings.epochs}; each must be less "
                "than that, [] is for a constant learning rate"
            )


def _sizes(config: Config) -> Iterator[str]:
    """Numbers of images that the paper's data cannot give; what lies on the disk is only known when it is read."""
    from viny.config.sections import SETS
    from viny.grid import held_back

    generated = config.data.procedural
    published = {"imagenet": (IMAGENET_IMAGES, "ImageNet-1K"), "pets": (PETS_IMAGES, "Oxford-IIIT Pet")}

    def problem(name: str, wanted: int, section: str, origin: str) -> Iterator[str]:
        if generated and origin in SETS:
            has, there = getattr(generated, origin), f"are generated (data.procedural.{origin})"
        elif origin in published and config.data.sets[origin].layout == origin:
            has, there = published[origin][0], f"exist ({published[origin][1]})"
        else:
            return
        reserved = 0 if origin == "intel" else held_back(config, section) or 0
        if wanted + reserved > has:
            held = {"pretrain": "pretrain.heldout_images"}.get(section, "finetune.test_images")
            reserve = f" and {held}, {reserved:,}," if reserved else ""
            fits = f"at most {has - reserved:,} fit" if has > reserved else "none fits"
            yield f"{name}: {wanted:,} images{reserve} are more than the {has:,} that {there}; {fits}"

    grid = config.grid
    sizes = [size for size in grid.pretrain if isinstance(size, int)]
    if max(sizes, default=0) > 0:
        yield from problem("grid.pretrain", max(sizes), "pretrain", config.pretrain.images)
    yield from problem("grid.downstream", max(grid.downstream), "finetune", config.finetune.images)
    for task in grid.intermediate:
        if task in config.intermediate:
            settings = config.intermediate[task]
            yield from problem(
                f"intermediate.{task}.count", settings.count or 1, f"intermediate.{task}", settings.images
            )
    if config.geometry.enabled:
        yield from problem("geometry.images", config.geometry.images, "finetune", config.finetune.images)


def _choices(config: Config) -> Iterator[str]:
    from viny.grid import cells_of

    if config.study == PUBLISHED:
        yield f"study: {PUBLISHED} is the name of the paper's own numbers; choose another"
    if os.path.realpath(config.results) == os.path.realpath(config.stores):
        yield f"stores: {config.stores} is the folder of the results, too; choose another"
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
