"""The config of a study: read, checked as a whole, and completed with defaults.

The schema says what each setting may be; this module says which settings do not go together. Every problem is a
line that names the setting, its value and what is allowed.
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from viny import settings, validation
from viny.errors import VinyError
from viny.grid import BASE, NONE, PETS_TASKS, enumerate_cells, exclusion

PETS_IMAGES = 7349  # Oxford-IIIT Pet, trainval and test together
IMAGENET_IMAGES = 1281167  # ImageNet-1K train
PUBLISHED = "published"  # the folder of the paper's own numbers among the results


def load(source: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """A complete, valid config.

    Args:
        source: the settings that differ from the defaults, or the YAML file that holds them.

    Raises:
        VinyError: one message with everything that is wrong.
    """
    config = complete(source if isinstance(source, Mapping) else read(Path(source)))
    validation.fail(list(_contradictions(config)))
    validation.fail([problem for name in config["variants"] for problem in _variant_problems(config, name)])
    return config


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are valid one by one, with defaults filled in; whether they go together is not looked at.

    Raises:
        VinyError: one message with everything that is wrong.
    """
    validation.check(dict(given), settings.schema(), places=_places())
    return _complete(given, settings.schema())


def vary(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The complete config of a variant: that of its study with `changes` laid over it.

    A variant is compared by its cells, so it measures no geometry.

    Raises:
        VinyError: a changed setting is not valid.
    """
    return complete(_overlay({**config, "variants": {}}, {**changes, "geometry": {"enabled": False}}))


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings laid over others, section by section; lists are replaced as a whole."""
    merged = dict(below)
    for key, value in above.items():
        deeper = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _overlay(merged[key], value) if deeper else value
    return merged


def read(path: Path) -> dict[str, Any]:
    """The settings in a YAML (or JSON) file, unchecked.

    Raises:
        VinyError: not there, not YAML, a key given twice, or not a mapping.
    """
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise VinyError(f"there is no config file {path}") from None
    except OSError as error:
        raise VinyError(f"{path} cannot be read: {error.strerror}; name the study's YAML file") from None
    except RecursionError:
        raise VinyError(f"{path} is not valid YAML: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, a date that does not exist, a huge number
        raise VinyError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict | None):
        raise VinyError(f"{path} holds {given!r}, not settings of the form `key: value`")
    return given or {}


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A mapping of different keys."""
        written = [key.value for key, _ in getattr(node, "value", []) if isinstance(key, yaml.ScalarNode)]
        for key, _ in getattr(node, "value", []):
            if isinstance(key, yaml.ScalarNode) and written.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


def _complete(given: Any, spec: dict[str, Any]) -> Any:
    """`given` with defaults filled in, and each number in the type that its setting has."""
    if isinstance(given, Mapping) and "properties" in spec:
        return {
            key: _complete(given.get(key, part.get("default", {})), part)
            for key, part in spec["properties"].items()
            if key in given or "default" in part or "properties" in part
        }
    if isinstance(given, Mapping):
        return dict(given)
    return settings.plain(given, spec)


def _places() -> dict[str, list[str]]:
    """The sections that know a key."""
    places: dict[str, list[str]] = {}

    def visit(spec: dict[str, Any], path: tuple[str, ...]) -> None:
        for key, part in spec.get("properties", {}).items():
            if path:
                places.setdefault(key, []).append(".".join(path))
            visit(part, (*path, key))

    visit(settings.schema(), ())
    return places


def _contradictions(config: dict[str, Any]) -> Iterator[str]:
    yield from _grid_problems(config["grid"])
    yield from _model_problems(config)
    yield from _schedule_problems(config)
    yield from _size_problems(config)
    yield from _choice_problems(config)


def _variant_problems(config: dict[str, Any], name: str) -> Iterator[str]:
    if name == BASE:
        yield f"variants.{name}: is what tables call the study itself; choose another name"
    try:
        varied = vary(config, config["variants"][name])
        validation.fail(list(_contradictions(varied)))
    except VinyError as error:
        yield from (f"variants.{name}: {line.strip()}" for line in str(error).splitlines())
        return
    if varied == vary(config, {}):
        yield f"variants.{name}: changes nothing; leave it out"
    added = set(enumerate_cells(varied["grid"])) - set(enumerate_cells(config["grid"]))
    if added:
        cell = ", ".join(f"{axis} {value}" for axis, value in min(added)._asdict().items())
        yield (
            f"variants.{name}.grid.exclude: leaves {len(added):,} cells that the study itself leaves out, such as "
            f"{cell}; a variant is compared with the study cell by cell"
        )


def _grid_problems(grid: dict[str, Any]) -> Iterator[str]:
    everything = list(enumerate_cells({**grid, "exclude": []}))
    axes = ("pretrain", "intermediate", "downstream", "seeds")
    for number, entry in enumerate(grid["exclude"]):
        pairs = exclusion(entry)
        if not any(all(cell[axis] in values for axis, values in pairs) for cell in everything):
            known = "; ".join(f"{axis} {_listed(grid[axis])}" for axis in axes)
            yield f"grid.exclude[{number}]: {entry} matches no cell of the grid, which has {known}"
    if not any(True for _ in enumerate_cells(grid)):
        yield f"grid.exclude: {grid['exclude']} leaves no cell of {len(everything):,}; remove an entry"


def _model_problems(config: dict[str, Any]) -> Iterator[str]:
    model, pretrain = config["model"], config["pretrain"]
    size, patch, pixels = model["image_size"], model["patch_size"], config["data"]["store_pixels"]
    if size % patch:
        yield f"model.image_size: {size} is not a multiple of model.patch_size, {patch}"
    elif round(pretrain["mask_ratio"] * (size // patch) ** 2) < 1:
        yield f"pretrain.mask_ratio: {pretrain['mask_ratio']} masks none of the {(size // patch) ** 2} patches"
    if pixels < size:
        yield f"data.store_pixels: {pixels} is smaller than model.image_size, {size}; stored images would be enlarged"
    for key in ("crop_scale", "crop_ratio"):
        smallest, largest = pretrain[key]
        if smallest > largest:
            yield f"pretrain.{key}: {pretrain[key]} begins with the larger value, the smaller one comes first"


def _schedule_problems(config: dict[str, Any]) -> Iterator[str]:
    tasks = {f"intermediate.{task}": section for task, section in config["intermediate"].items()}
    for name, section in {"pretrain": config["pretrain"], **tasks, "finetune": config["finetune"]}.items():
        milestones, epochs = section["milestones"], section["epochs"]
        if any(one >= other for one, other in itertools.pairwise(milestones)):
            yield f"{name}.milestones: {milestones} does not increase"
        if milestones and max(milestones) >= epochs:
            yield (
                f"{name}.milestones: {milestones} reaches beyond {name}.epochs, {epochs}; each must be less than that, "
                "[] is for a constant learning rate"
            )


def _size_problems(config: dict[str, Any]) -> Iterator[str]:
    """Numbers of images that the data cannot give; what really lies on the disk is only known when it is read."""
    grid, generated, test = config["grid"], config["data"]["procedural"], config["finetune"]["test_images"]
    source = "are generated (data.procedural.{})" if generated else "exist ({})"
    has = generated or {"imagenet": IMAGENET_IMAGES, "pets": PETS_IMAGES}

    def problem(name: str, wanted: int, reserve: str, reserved: int, origin: str, title: str) -> Iterator[str]:
        if wanted + reserved > has[origin]:
            there = source.format(origin if generated else title)
            fits = f"at most {has[origin] - reserved:,} fit" if has[origin] > reserved else "none fits"
            yield (
                f"{name}: {wanted:,} images and {reserve}, {reserved:,}, are more than the {has[origin]:,} "
                f"that {there}; {fits}"
            )

    if max(grid["pretrain"]) > 0:
        heldout = config["pretrain"]["heldout_images"]
        yield from problem(
            "grid.pretrain", max(grid["pretrain"]), "pretrain.heldout_images", heldout, "imagenet", "ImageNet-1K"
        )
    pets = [("grid.downstream", max(grid["downstream"]))]
    for task in set(grid["intermediate"]) & set(PETS_TASKS):
        pets.append((f"intermediate.{task}.images", config["intermediate"][task]["images"] or 1))
    if config["geometry"]["enabled"]:
        pets.append(("geometry.images", config["geometry"]["images"]))
    for name, wanted in pets:
        yield from problem(name, wanted, "finetune.test_images", test, "pets", "Oxford-IIIT Pet")
    scenes = config["intermediate"]["cls_intel"]["images"] or 0
    if generated and "cls_intel" in grid["intermediate"] and scenes > generated["intel"]:
        yield from problem("intermediate.cls_intel.images", scenes, "no others", 0, "intel", "")


def _choice_problems(config: dict[str, Any]) -> Iterator[str]:
    grid, data = config["grid"], config["data"]
    if config["study"] == PUBLISHED:
        yield f"study: {PUBLISHED} is the name of the paper's own numbers; choose another"
    tasks = [task for task in grid["intermediate"] if task in PETS_TASKS]
    if config["finetune"]["test_set"] == "moving" and tasks:
        yield (
            f"finetune.test_set: moving goes with the tasks none and cls_intel only; {_listed(tasks)} in "
            "grid.intermediate would be trained on images that are tested later"
        )
    if data["download"] and data["procedural"]:
        yield "data.download: true concerns real images, but data.procedural generates them; remove one of the two"
    if config["geometry"]["enabled"] and not any(
        cell.pretrain > 0 or cell.intermediate != NONE for cell in enumerate_cells(grid)
    ):
        yield "geometry.enabled: true measures encoders, but the grid trains none; add a size to grid.pretrain"


def _listed(values: list[Any]) -> str:
    return ", ".join(map(str, values))
