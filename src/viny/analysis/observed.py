"""The tables of a study, from the results of its runs."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from viny.analysis.frames import (
    BUDGET,
    CHANCE,
    COST,
    ENCODER,
    GEOMETRY,
    PLACE,
    PRETRAINED,
    PROBE_CHANCE,
    PROBES,
    RUN,
    SCORES,
    STAGE_COSTS,
    Tables,
)
from viny.analysis.mixtures import COMPUTE, Results, refuse_mixtures, refuse_other_encoders
from viny.config import vary
from viny.config.sections import BASE
from viny.datasets.leaks import described, leaks
from viny.errors import VinyError
from viny.grid import Job, Study
from viny.result import HISTORY, Result, read_history, read_result
from viny.survey import analysis_key


def from_study(study: Study) -> Tables:
    """Read what is there of the results of a study and its variants; what is not stays in the tables as missing.

    Raises:
        VinyError: the study declares no cell, or a result is damaged or does not belong to the others.
    """
    jobs = study.jobs.values()
    results: Results = {job: read_result(job) for job in jobs}
    members = {name: {job: results[job] for job in needed} for name, needed in study.members.items()}
    frames = []
    for name, own in members.items():
        refuse_mixtures(own)
        refuse_other_encoders(own)
        config = vary(study.config, study.config.variants[name]) if name else study.config
        shared = [bool(name) and not job.variant for job in own if job.stage == "finetune"]
        frames.append(_cells(study.name, own, config.analysis.miou).assign(variant=name or BASE, shared=shared))
    refuse_mixtures(results, settings=False)
    cells, own = frames[0].drop(columns=["variant", "shared"]), members[""]
    if cells.empty:
        raise VinyError(f"study {study.name} declares no cell; see `grid:` and its `exclude:` in the study file")
    geometry, similarity = _geometry(own)
    settings = {
        "study": study.name,
        "key": analysis_key(study),
        "miou": study.config.analysis.miou,
        "confidence": study.config.analysis.confidence,
        "share_encoder": study.config.grid.share_encoder,
        "claims": {name: claim.model_dump(mode="json") for name, claim in study.config.claims.items()},
        "leaks": described(leaks(study)),
        **study.config.model_dump(mode="json", include={"goal", "budget", "prices", "variants"}),
        "stages": _stages(own),
    }
    variants = pd.concat(frames if len(frames) > 1 else [frames[0][:0]], ignore_index=True)
    finished = tuple(job for job in jobs if results[job])
    costs, histories = _costs(results), _histories(jobs)
    return Tables(cells, settings, geometry, costs, histories, similarity, variants, finished, study.folder)


def _cells(study: str, results: Results, headline: str) -> pd.DataFrame:
    """cells.csv: one row per declared cell, whether its result exists or not."""
    rows = []
    for job, result in results.items():
        if job.stage == "finetune":
            scores = _scores(job, result, headline) if result else {"status": "missing"}
            rows.append({"study": study, **place_of(job), **scores, **_encoder(job, results)})
    classes = dict.fromkeys(key for row in rows for key in row if key.startswith("iou_"))
    columns = ["study", *PLACE, *SCORES, *classes, *CHANCE, "loss", *BUDGET, *COST, *STAGE_COSTS]
    columns += [*PRETRAINED, *COMPUTE, "code", "settings"]
    return pd.DataFrame(rows, columns=columns)


def _scores(job: Job, result: Result, headline: str) -> dict[str, Any]:
    """The columns that come from the cell's own metrics.json."""
    scores, provenance = result.metrics, result.provenance
    miou = "miou_per_image" if headline == "per_image" else "miou"
    chance = {f"{name}_miou_percent": _percent(getattr(blind, miou)) for name, blind in scores.chance.items()}
    chance |= {f"{name}_accuracy_percent": _percent(blind.pixel_accuracy) for name, blind in scores.chance.items()}
    return {
        "status": "done",
        "accuracy_percent": _percent(scores.pixel_accuracy),
        "miou_percent": _percent(getattr(scores, miou)),
        "miou_per_image_percent": _percent(scores.miou_per_image),
        **chance,
        **{f"iou_{name}_percent": _percent(value) for name, value in scores.class_iou.items()},
        **{"loss": scores.loss, "code": provenance.code, "settings": provenance.settings},
        **_spent(job, result),
    }


def _spent(job: Job, result: Result) -> dict[str, Any]:
    """What a job was given, what it cost, and what may change its numbers without being a setting of the study."""
    provenance, own = result.provenance, result.settings.get(job.section, {})
    columns = result.budget.model_dump() | result.cost.model_dump() | provenance.compute
    columns |= {key: getattr(provenance, key) for key in ("device", "device_name", "host", "started", "finished")}
    return columns | {"precision": own.get("precision"), "torch": provenance.packages.get("torch")}


def place_of(job: Job) -> dict[str, Any]:
    """Coordinates of a job, the name of an encoder that was not trained here apart from the sizes."""
    at, name = dict(job.coordinates), job.coordinates["pretrain"]
    external = isinstance(name, str)
    return at | {"pretrain": 0 if external else name, "encoder": name if external else ""}


def run_of(job: Job) -> dict[str, Any]:
    """The columns RUN."""
    return {"variant": job.variant or BASE, "stage": job.stage, **place_of(job)}


def _encoder(job: Job, results: Results) -> dict[str, float]:
    """What the encoder that a cell starts from was given and cost, and its loss; not a number where it is unknown."""
    costs = dict.fromkeys(STAGE_COSTS, 0.0) | dict.fromkeys(PRETRAINED, math.nan)
    if isinstance(job.coordinates["pretrain"], str):
        costs |= {"pretrain_samples": math.nan, "pretrain_seconds": math.nan}
    encoder = job.upstream
    while encoder:
        result = results[encoder]
        costs[f"{encoder.stage}_samples"] = result.budget.samples_seen if result else math.nan
        costs[f"{encoder.stage}_seconds"] = result.cost.train_seconds if result else math.nan
        if encoder.stage == "pretrain" and result:
            costs |= {"pretrain_steps": result.budget.steps, "pretrain_loss": result.metrics.loss}
        encoder = encoder.upstream
    return costs


def _costs(results: Results) -> pd.DataFrame:
    """costs.csv: what every finished job cost."""
    rows = [
        {
            **run_of(job),
            "heldout_loss": getattr(result.metrics, "loss", None),
            **_spent(job, result),
        }
        for job, result in results.items()
        if result
    ]
    columns = [
        *RUN,
        "heldout_loss",
        "images",
        "epochs",
        *BUDGET,
        *COST,
        "evaluate_seconds",
        "peak_memory_mb",
        "resumes",
    ]
    frame = pd.DataFrame(rows, columns=[*columns, *COMPUTE, "host", "started", "finished"])
    return frame.astype({"downstream": "Int64"})


def _histories(jobs: Iterable[Job]) -> pd.DataFrame:
    """histories.csv: the training curve of every job that has one."""
    rows = [{**run_of(job), **epoch} for job in jobs for epoch in read_history(job)]
    return pd.DataFrame(rows, columns=[*RUN, *HISTORY]).astype({"downstream": "Int64"})


def _geometry(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """geometry.csv and similarity.csv; without rows where the study measures no geometry."""
    encoders, curves = [], []
    for job, result in results.items():
        if job.stage == "geometry":
            row: dict[str, Any] = {**place_of(job), "status": "done" if result else "missing"}
            if result:
                scores = result.metrics.model_dump()
                curve = scores["similarity_by_distance"]
                curves += [{**row, "distance": distance, "similarity": value} for distance, value in enumerate(curve)]
                probes = (*PROBES, *PROBE_CHANCE)
                row |= scores | {key: _percent(scores[key.removesuffix("_percent")]) for key in probes}
            encoders.append(row)
    geometry = pd.DataFrame(encoders, columns=[*ENCODER, "status", *GEOMETRY, *PROBES, *PROBE_CHANCE])
    return geometry, pd.DataFrame(curves, columns=[*ENCODER, "distance", "similarity"])


def _stages(results: Results) -> dict[str, Any]:
    """For each kind of job the settings really used, and the versions, devices and commits met, most frequent first."""

    def met(values: Iterable[Any]) -> dict[str, int]:
        return {str(value): times for value, times in Counter(values).most_common()}

    kinds: dict[str, Any] = {}
    for job in {job.kind: job for job in results}.values():
        found = [results[other] for other in results if other.kind == job.kind]
        done = [result for result in found if result]
        kinds[job.kind] = {"task": job.task, "images": job.store.name, "declared": len(found), "done": len(done)}
        if done:
            all_of = [result.provenance for result in done]
            packages = sorted({name for each in all_of for name in each.packages})
            kinds[job.kind] |= {
                "settings": done[0].settings,
                "trained_on": done[0].budget.images,
                "settings_fingerprint": all_of[0].settings,
                "code": all_of[0].code,
                "commits": met(each.commit for each in all_of),
                "devices": met(each.device_name for each in all_of),
                "python": met(each.python for each in all_of),
                "packages": {name: met(each.packages.get(name) for each in all_of) for name in packages},
            }
    return kinds


def _percent(share: float | None) -> float:
    return math.nan if share is None else 100 * share
