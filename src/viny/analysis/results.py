"""Reading the results that the stages left behind, and refusing to mix what does not belong together."""

import json
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

import yaml

from viny.errors import VinyError
from viny.grid import Job
from viny.study import Study

# What a metrics.json must have to be read at all (the full schema is schemas/metrics.schema.yaml).
FORMAT = 1
SECTIONS = ("stage", "coordinates", "metrics", "budget", "cost", "settings", "provenance")
HISTORY = ("epoch", "step", "loss", "learning_rate", "images_per_second", "seconds")
SHOWN = 6  # folders named in a message


def read_result(job: Job) -> dict[str, Any] | None:
    """A job's metrics.json, or None if it has not been written.

    Raises:
        VinyError: the file is damaged, of another format, or belongs to another job.
    """
    path = job.metrics
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise VinyError(f"{path} is damaged ({error}); delete it and run snakemake again") from None
    missing = [name for name in SECTIONS if not isinstance(result, dict) or name not in result]
    if missing:
        raise VinyError(f"{path} lacks {', '.join(missing)}: not a viny result; delete it and run snakemake again")
    if result.get("schema") != FORMAT:
        raise VinyError(
            f"{path} has format {result.get('schema')}, this version of viny reads {FORMAT}; "
            "delete it and run snakemake again, or use the version that wrote it"
        )
    odd = [name for name in SECTIONS[1:] if not isinstance(result[name], dict)]
    if odd:
        raise VinyError(f"{path} is damaged ({odd[0]} is no section); delete it and run snakemake again")
    found = {name: result["coordinates"].get(name) for name in job.coordinates}
    if result["stage"] != job.stage or found != job.coordinates:
        raise VinyError(
            f"{path} belongs to {result['stage']} {_place(found)}, not to {job.stage} {_place(job.coordinates)}; "
            "it was moved or copied: delete it and run snakemake again"
        )
    for error in _metrics_of(job.stage).iter_errors(result["metrics"]):
        where = ".".join(map(str, ["metrics", *error.absolute_path]))
        raise VinyError(f"{path} is damaged ({where}: {error.message[:200]}); delete it and run snakemake again")
    return result


@cache
def _metrics_of(stage: str) -> Any:
    """Checks the `metrics` of a stage, on which tables rely."""
    import jsonschema

    text = resources.files("viny").joinpath("schemas/metrics.schema.yaml").read_text(encoding="utf-8")
    definitions = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["$defs"]
    return jsonschema.Draft202012Validator({**definitions[stage], "$defs": definitions})


def read_history(job: Job) -> list[dict[str, Any]]:
    """A job's history.jsonl, one dictionary per epoch; empty if there is none."""
    path = job.folder / "history.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        if not all(isinstance(row, dict) and all(isinstance(row.get(k), int | float) for k in HISTORY) for row in rows):
            raise ValueError(f"a line does not hold the numbers {', '.join(HISTORY)}")
        return rows
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise VinyError(f"{path} is damaged ({error}); delete its folder and run snakemake again") from None


def read_all(jobs: Iterable[Job]) -> dict[Job, dict[str, Any] | None]:
    """Results of all jobs, after `refuse_mixtures`."""
    results = {job: read_result(job) for job in jobs}
    refuse_mixtures({job: result for job, result in results.items() if result is not None})
    return results


def refuse_mixtures(results: dict[Job, dict[str, Any]], settings: bool = True) -> None:
    """Stop when jobs of one kind ran with different training code or different settings.

    Such results would differ for another reason than the grid's, and a table could not show it.

    Args:
        settings: whether settings must be equal; those of a study and its variants need not.

    Raises:
        VinyError: names the odd ones (all but the most frequent version) and says what to do.
    """
    kinds: dict[str, list[Job]] = defaultdict(list)
    for job in results:
        kinds[job.kind].append(job)
    for kind, jobs in kinds.items():
        for what, key in (("training code", "code"), ("settings", "settings"))[: 1 + settings]:
            groups: dict[str, list[Job]] = defaultdict(list)
            for job in jobs:
                groups[str(results[job]["provenance"].get(key))].append(job)
            if len(groups) > 1:
                raise VinyError(_mixture(kind, what, groups, results))


def refuse_other_studies(study: Study, results: dict[Job, dict[str, Any] | None]) -> None:
    """Stop when a result was made for a study of another name, whose settings may be others.

    Raises:
        VinyError: names the first such result.
    """
    for job, result in results.items():
        made_for = result["coordinates"].get("study", study.name) if result else study.name
        if made_for != study.name:
            raise VinyError(
                f"{job.metrics} was made for the study {made_for}, not {study.name}; move the folders of the other "
                f"study out of {study.folder} and run snakemake again, or set `study: {made_for}`"
            )


def refuse_other_encoders(study: Study, results: dict[Job, dict[str, Any] | None]) -> None:
    """Stop when a result started from another encoder than the one that the study now has in that place.

    Raises:
        VinyError: names the result and the encoder.
    """
    made = {job.folder: result.get("outputs", {}) for job, result in results.items() if result}
    for job, result in results.items():
        if result is None or job.stage == "pretrain":
            continue
        at = job.coordinates
        task = "none" if job.stage == "intermediate" else at["intermediate"]
        encoder = study.encoder(at["pretrain"], task, at["seed"])
        now = made.get(encoder.parent, {}).get(encoder.name) if encoder else None
        then = result["provenance"].get("inputs", {}).get("encoder")
        if now and then and now != then:
            raise VinyError(
                f"{job.folder} started from another encoder than the one in {encoder.parent}, which was trained anew "
                "since; delete the former and run snakemake again"
            )


def own_settings(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Of the settings that a job recorded, by section, those of its own stage: `finetune`, `intermediate cls_intel`."""
    return settings.get(kind.replace(" ", "."), {})


def _mixture(kind: str, what: str, groups: dict[str, list[Job]], results: dict[Job, dict]) -> str:
    versions = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    usual = versions[0][1]
    lines = [f"results of {kind} were made with {len(groups)} versions of the {what}; they cannot share a table:"]
    lines.append(f"  {len(usual)} of {sum(map(len, groups.values()))} with {versions[0][0]}")
    for version, jobs in versions[1:]:
        lines.append(f"  {len(jobs)} with {version}{_difference(usual[0], jobs[0], results)}:")
        lines += [f"    {job.folder}" for job in jobs[:SHOWN]]
        if len(jobs) > SHOWN:
            lines.append(f"    and {len(jobs) - SHOWN} more")
    lines.append(
        "Delete the folders of the version you do not want and run snakemake again, "
        "or give the new version a `study:` name of its own."
    )
    return "\n".join(lines)


def _difference(one: Job, other: Job, results: dict[Job, dict]) -> str:
    """`, where epochs is 3 instead of 5`: the settings in which two results differ."""
    here, there = _flat(results[one]["settings"]), _flat(results[other]["settings"])
    keys = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
    if not keys:
        return ""
    return ", where " + ", ".join(f"{key} is {there.get(key)} instead of {here.get(key)}" for key in keys)


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """`{"finetune": {"epochs": 3}}` -> `{"finetune.epochs": 3}`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return flat


def _place(coordinates: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in coordinates.items())
