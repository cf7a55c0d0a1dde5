"""Gather what all jobs of a study measured into a few tidy files, the analysis's only input.

    python -m viny.analysis.collect --config '{"study": "demo", "grid": {...}}' --output results/demo

Outputs, in the output folder (all numbers of metrics.json in the unit of the column's name):

| file | one row per | content |
|---|---|---|
| cells.csv | declared cell | scores in percent, costs, fingerprints; status `done` or `missing` |
| costs.csv | job of any stage | images, updates, seconds, memory, device |
| histories.csv | epoch of any job | loss, learning rate, images/s |
| geometry.csv | encoder | variances (absolute), probe accuracies in percent |
| similarity.csv | encoder and distance | mean cosine similarity of patches at that Manhattan distance |
| settings.json | | settings, code, versions and devices of each stage, as recorded by the jobs themselves |
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from viny import console
from viny.analysis.files import write_csv, write_json
from viny.analysis.results import own_settings, read_all, read_history, refuse_other_encoders, refuse_other_studies
from viny.errors import VinyError, command
from viny.grid import Job
from viny.study import Study

PLACE = ["pretrain", "intermediate", "downstream", "seed"]
CELL_COLUMNS = [
    "study",
    *PLACE,
    "status",
    "accuracy_percent",
    "miou_percent",
    "miou_per_image_percent",
    "iou_foreground_percent",
    "iou_background_percent",
    "iou_border_percent",
    "loss",
    "steps",
    "image_passes",
    "train_seconds",
    "startup_seconds",
    "images_per_second",
    "pretrain_passes",
    "pretrain_seconds",
    "intermediate_passes",
    "intermediate_seconds",
    "device_name",
    "precision",
    "code",
    "settings",
]
COST_COLUMNS = ["images", "epochs", "steps", "image_passes"]
COST_SECONDS = [
    "train_seconds",
    "evaluate_seconds",
    "startup_seconds",
    "images_per_second",
    "peak_memory_mb",
    "resumes",
]
GEOMETRY_METRICS = ["within_image_variance", "across_image_variance"]
GEOMETRY_PERCENT = ["probe_accuracy", "probe_accuracy_training"]
HISTORY_COLUMNS = ["epoch", "step", "loss", "learning_rate", "images_per_second", "seconds"]

Results = dict[Job, dict[str, Any] | None]


def cells_frame(study: Study, results: Results, headline: str = "dataset") -> pd.DataFrame:
    """cells.csv: one row per declared cell, whether its result exists or not.

    Args:
        study: what is declared.
        results: all jobs of the study and what they measured (None: missing).
        headline: which mIoU is `miou_percent`: of the `dataset`'s confusion matrix, or the mean `per_image`.
    """
    folders = {job.folder: result for job, result in results.items()}
    rows = [
        {"study": study.name, **job.coordinates, **_scores(result, headline), **_encoder_cost(study, job, folders)}
        for job, result in results.items()
        if job.stage == "finetune"
    ]
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def costs_frame(results: Results) -> pd.DataFrame:
    """costs.csv: what every finished job cost."""
    rows = []
    for job, result in results.items():
        if result is None:
            continue
        budget, cost, provenance = result["budget"], result["cost"], result["provenance"]
        rows.append(
            {
                "stage": job.stage,
                **{key: job.coordinates.get(key) for key in PLACE},
                **{key: budget.get(key) for key in COST_COLUMNS},
                **{key: cost.get(key) for key in COST_SECONDS},
                **{key: provenance.get(key) for key in ("device_name", "host", "started", "finished")},
            }
        )
    columns = ["stage", *PLACE, *COST_COLUMNS, *COST_SECONDS, "device_name", "host", "started", "finished"]
    return pd.DataFrame(rows, columns=columns).astype({"downstream": "Int64"})


def histories_frame(jobs: Iterable[Job]) -> pd.DataFrame:
    """histories.csv: the training curve of every job that has one."""
    rows = [
        {"stage": job.stage, **{key: job.coordinates.get(key) for key in PLACE}, **epoch}
        for job in jobs
        for epoch in read_history(job)
    ]
    return pd.DataFrame(rows, columns=["stage", *PLACE, *HISTORY_COLUMNS]).astype({"downstream": "Int64"})


def geometry_frames(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """geometry.csv and similarity.csv; without rows where the study measures no geometry."""
    place = ["pretrain", "intermediate", "seed"]
    encoders, similarities = [], []
    for job, result in results.items():
        if job.stage != "geometry":
            continue
        at = {key: job.coordinates[key] for key in place}
        metrics = result["metrics"] if result else {}
        row = {**at, "status": "done" if result else "missing"}
        row |= {key: metrics.get(key, math.nan) for key in GEOMETRY_METRICS}
        row |= {f"{key}_percent": _percent(metrics.get(key)) for key in GEOMETRY_PERCENT}
        encoders.append(row)
        similarities += [
            {**at, "distance": distance, "similarity": value}
            for distance, value in enumerate(metrics.get("similarity_by_distance", []))
        ]
    columns = [*place, "status", *GEOMETRY_METRICS, *(f"{key}_percent" for key in GEOMETRY_PERCENT)]
    return pd.DataFrame(encoders, columns=columns), pd.DataFrame(
        similarities, columns=[*place, "distance", "similarity"]
    )


def settings_summary(name: str, results: Results, headline: str) -> dict[str, Any]:
    """settings.json: for each kind of job the settings really used, and the versions, devices and commits met."""
    kinds: dict[str, Any] = {}
    for kind in dict.fromkeys(job.kind for job in results):
        found = [result for job, result in results.items() if job.kind == kind and result]
        declared = sum(job.kind == kind for job in results)
        kinds[kind] = {"declared": declared, "done": len(found)}
        if found:
            provenance = [result["provenance"] for result in found]
            kinds[kind] |= {
                "settings": found[0]["settings"],
                "settings_fingerprint": provenance[0].get("settings"),
                "code": provenance[0].get("code"),
                "commits": _met(record.get("commit") for record in provenance),
                "devices": _met(record.get("device_name") for record in provenance),
                "python": _met(record.get("python") for record in provenance),
                "packages": {
                    package: _met(record.get("packages", {}).get(package) for record in provenance)
                    for package in sorted({key for record in provenance for key in record.get("packages", {})})
                },
            }
    return {"study": name, "miou": headline, "stages": kinds}


def write(study: Study, folder: Path, headline: str) -> tuple[int, int]:
    """Write all files of this module into `folder`; returns how many cells are done and declared."""
    results = read_all(study.jobs())
    refuse_other_studies(study, results)
    refuse_other_encoders(study, results)
    cells = cells_frame(study, results, headline)
    if cells.empty:
        raise VinyError(f"study {study.name} declares no cell; see `grid:` and its `exclude:` in the config")
    geometry, similarity = geometry_frames(results)
    frames = {
        "cells": cells,
        "costs": costs_frame(results),
        "histories": histories_frame(results),
        "geometry": geometry,
        "similarity": similarity,
    }
    for name, frame in frames.items():
        write_csv(folder / f"{name}.csv", frame)
    write_json(folder / "settings.json", settings_summary(study.name, results, headline))
    return int((cells["status"] == "done").sum()), len(cells)


def _scores(result: dict[str, Any] | None, headline: str) -> dict[str, Any]:
    """The columns of cells.csv that come from the cell's own metrics.json."""
    if result is None:
        return {"status": "missing"}
    metrics, cost, provenance = result["metrics"], result["cost"], result["provenance"]
    return {
        "status": "done",
        "accuracy_percent": _percent(metrics["pixel_accuracy"]),
        "miou_percent": _percent(metrics["miou_per_image" if headline == "per_image" else "miou"]),
        "miou_per_image_percent": _percent(metrics["miou_per_image"]),
        **{f"iou_{name}_percent": _percent(value) for name, value in metrics["class_iou"].items()},
        "loss": metrics["loss"],
        **{key: result["budget"].get(key) for key in ("steps", "image_passes")},
        **{key: cost.get(key) for key in ("train_seconds", "startup_seconds", "images_per_second")},
        "device_name": provenance.get("device_name"),
        "precision": own_settings("finetune", result["settings"]).get("precision"),
        "code": provenance.get("code"),
        "settings": provenance.get("settings"),
    }


def _encoder_cost(study: Study, job: Job, folders: dict[Path, dict[str, Any] | None]) -> dict[str, float]:
    """Image passes and seconds spent on the encoder that a cell starts from; not a number where that is unknown."""
    at = job.coordinates
    starts = {"pretrain": study.encoder(at["pretrain"], "none", at["seed"]), "intermediate": None}
    if at["intermediate"] != "none":
        starts["intermediate"] = study.encoder(at["pretrain"], at["intermediate"], at["seed"])
    costs: dict[str, float] = {}
    for stage, encoder in starts.items():
        result = folders.get(encoder.parent) if encoder else None
        unknown = math.nan if encoder else 0
        costs[f"{stage}_passes"] = result["budget"]["image_passes"] if result else unknown
        costs[f"{stage}_seconds"] = result["cost"]["train_seconds"] if result else unknown
    return costs


def _percent(share: float | None) -> float:
    return math.nan if share is None else 100 * share


def _met(values: Iterable[Any]) -> dict[str, int]:
    """How often each value was met, most frequent first."""
    return {str(value): times for value, times in Counter(values).most_common()}


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", required=True, type=json.loads, help="the part of the config that declares the cells, as JSON"
    )
    parser.add_argument(
        "--miou", choices=["dataset", "per_image"], default="dataset", help="which mIoU is the headline"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    done, declared = write(Study.from_declaration(args.config), args.output, args.miou)
    console.say(f"collected {done:,} of {declared:,} cells into {args.output}")
    if done < declared:
        console.say(f"{declared - done:,} cells have no result yet; they appear as missing everywhere")


if __name__ == "__main__":
    raise SystemExit(main())
