"""From a study file to a `Config`: checked as a whole, completed with defaults, every problem in one message."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from viny.config import problems, yamlfile
from viny.config.cells import cells_of
from viny.config.sections import (
    BASE,
    INTERMEDIATE,
    SETS,
    Config,
    Finetuning,
    Intermediate,
    Pretraining,
    Section,
    Training,
)
from viny.errors import VinyError, did_you_mean

# The settings of the tasks that come with viny; a further task says its own (`Settings` in its module).
TASKS: dict[str, type[Training]] = {
    "simmim": Pretraining,
    "classification": Intermediate,
    "patches": Intermediate,
    "segmentation": Finetuning,
}
# What a variant may change.
VARIABLE = ("grid", "data", "model", "pretrain", "intermediate", "finetune", "seeding", "analysis")
VARIABLE_KEYS = {"grid": ("exclude", "share_encoder"), "data": ("split_seed", "resize"), "analysis": ("miou",)}

AnySection = TypeVar("AnySection", bound=Section)
AnyTraining = TypeVar("AnyTraining", bound=Training)


def load(*sources: Mapping[str, Any] | str | Path) -> Config:
    """A complete, valid config.

    Args:
        sources: settings that differ from the defaults, or YAML files that hold them; later ones are laid over earlier
            ones, section by section.

    Raises:
        VinyError: one message with everything that is wrong.
    """
    given: dict[str, Any] = {}
    for source in sources:
        given = overlay(given, source if isinstance(source, Mapping) else yamlfile.read(Path(source)))
    config = _complete(given)
    _fail(problems.contradictions(config))
    _fail(problem for name in config.variants for problem in _variant_problems(config, name))
    return config


def vary(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config of a variant: that of its study with `changes` laid over it.

    A variant is compared by its cells, so it measures no geometry.

    Raises:
        VinyError: a changed setting is not valid.
    """
    below = config.model_dump(mode="json", exclude={"variants"})
    return _complete(overlay(overlay(below, changes), {"geometry": {"enabled": False}}))


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings laid over others, section by section; lists are replaced as a whole."""
    merged = dict(below)
    for key, value in above.items():
        deeper = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if deeper else value
    return merged


def task_settings(task: str) -> type[Training]:
    """The class of a task's settings."""
    return TASKS.get(task) or importlib.import_module(f"viny.tasks.{task}").Settings


def known_tasks() -> list[str]:
    """Names of all tasks."""
    folder = Path(__file__).parents[1] / "tasks"
    found = {path.stem for path in folder.glob("[a-z]*.py")} - {"base", "metrics", "geometry"}
    return sorted({*TASKS, *found})


def _complete(given: Mapping[str, Any]) -> Config:
    """Settings that are valid one by one, with defaults filled in; whether they go together is not looked at."""
    found: list[str] = []
    raw = _present(_whole(dict(given)))
    for name, default in (("pretrain", Pretraining), ("finetune", Finetuning)):
        if name in raw:
            raw[name] = _stage(raw[name], default, (name,), found)
    if isinstance(raw["intermediate"], Mapping):
        tasks = raw["intermediate"]
        raw["intermediate"] = {name: _stage(tasks[name], Intermediate, ("intermediate", name), found) for name in tasks}
    broken = [name for name in ("pretrain", "finetune", "intermediate") if _holds_none(raw.get(name, 0))]
    config = _section(Config, {key: value for key, value in raw.items() if key not in broken}, (), found)
    _fail(found)
    assert config is not None
    return config


def _whole(value: Any) -> Any:
    """Numbers such as 100.0 as whole ones, which every setting takes that takes fractions."""
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _present(raw: dict[str, Any]) -> dict[str, Any]:
    """Settings with what is predeclared, and under their present names: older study files stay valid."""
    data, tasks, geometry = raw.get("data", {}), raw.get("intermediate", {}), raw.get("geometry")
    if isinstance(data, Mapping):
        former = {name: {"images": data[name]} for name in SETS if isinstance(data.get(name), str)}
        data = {key: value for key, value in data.items() if key not in former}
        if "order_seed" in data:
            data.setdefault("split_seed", data.pop("order_seed"))
        data = overlay({"sets": overlay(SETS, former)}, data)
    if isinstance(tasks, Mapping):
        tasks = overlay(INTERMEDIATE, {name: _count(settings) for name, settings in tasks.items()})
    if isinstance(geometry, Mapping):
        gone = ("probe_accuracy", "probe_epochs", "probe_learning_rate")  # the probe is trained to convergence
        raw["geometry"] = {key: value for key, value in geometry.items() if key not in gone}
    return {**raw, "data": data, "intermediate": tasks}


def _count(settings: Any) -> Any:
    """`images: 1200` was the number of a task's training images; it is the name of its data set now."""
    if isinstance(settings, Mapping) and not isinstance(settings.get("images", ""), str):
        settings = dict(settings)
        settings.setdefault("count", settings.pop("images"))
    return settings


def _holds_none(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and None in value.values())


def _stage(value: Any, stage: type[AnyTraining], at: tuple[str, ...], found: list[str]) -> AnyTraining | None:
    """A stage's section in the class that its task asks for."""
    name = problems.dotted(at)
    if not isinstance(value, Mapping):
        found.append(f"{name}: {value!r} is not a section with keys")
        return None
    task = value.get("task", stage.model_fields["task"].default)
    if not isinstance(task, str):
        found.append(f"{name}.task: {f'{task!r} is not text' if 'task' in value else 'is missing'}; name a task")
        return None
    fitting = [known for known in known_tasks() if issubclass(task_settings(known), stage)]
    if task not in fitting:
        hint = did_you_mean(task, fitting)
        found.append(f"{name}.task: {task!r} is no task for this stage; known: {', '.join(fitting)}{hint}")
        return None
    return _section(task_settings(task), value, at, found)  # type: ignore[return-value]


def _section(kind: type[AnySection], value: Any, at: Sequence[str], found: list[str]) -> AnySection | None:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        found += problems.explain(error, kind, at)
        return None


def _variant_problems(config: Config, name: str) -> Iterator[str]:
    changes = config.variants[name]
    if name == BASE:
        yield f"variants.{name}: is what tables call the study itself; choose another name"
    for section, value in changes.items():
        if section not in VARIABLE:
            hint = did_you_mean(section, VARIABLE)
            yield f"variants.{name}.{section}: a variant cannot change it{hint}; it may change {', '.join(VARIABLE)}"
            return
        for key in value if isinstance(value, Mapping) and section in VARIABLE_KEYS else ():
            if key not in VARIABLE_KEYS[section]:
                known = ", ".join(VARIABLE_KEYS[section])
                yield f"variants.{name}.{section}.{key}: a variant cannot change it; it may change {known}"
                return
    try:
        varied = vary(config, changes)
        _fail(problems.contradictions(varied))
    except VinyError as error:
        yield from (f"variants.{name}.{line.strip()}" for line in str(error).splitlines())
        return
    if varied == vary(config, {}):
        yield f"variants.{name}: changes nothing; leave it out"
    added = set(cells_of(varied.grid)) - set(cells_of(config.grid))
    if added:
        cell = ", ".join(f"{axis} {value}" for axis, value in min(added, key=str)._asdict().items())
        yield (
            f"variants.{name}.grid.exclude: leaves {len(added):,} cells that the study itself leaves out, such as "
            f"{cell}; a variant is compared with the study cell by cell"
        )


def _fail(found: Iterator[str] | Sequence[str]) -> None:
    """Raise one VinyError with all problems, if there are any."""
    lines = list(dict.fromkeys(found))
    if lines:
        raise VinyError("\n  ".join(lines))
