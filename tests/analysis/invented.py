"""A study with invented results, in the files that jobs write."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from viny.config import load
from viny.grid import Job, Study

SIDE, PATCHES = 16, 4
PAPER = ("foreground", "background", "border")
RIGHT = 10**9  # pixels of a class that are predicted right
EMPTY = {"packages": {"torch": "2.9"}, "python": "3.12", "host": "h", "commit": "abc", "viny": "0.1", "command": []}


def study_of(folder: Path, variants: dict | None = None, geometry: bool = True, **grid: Any) -> Study:
    """A small study below `folder`."""
    axes = {
        "pretrain": [0, 256, 1024],
        "intermediate": ["none", "cls_intel"],
        "downstream": [32, 128],
        "seeds": [1, 2, 3],
    }
    names = [name for name in (axes | grid)["pretrain"] if isinstance(name, str)]
    return Study(
        load(
            {
                "study": "toy",
                "results": str(folder),
                "grid": axes | grid,
                "geometry": {"enabled": geometry},
                "variants": variants or {},
                "encoders": {name: {"file": f"{name}.safetensors"} for name in names},
            }
        )
    )


def miou(pretrain: int | str, intermediate: str, downstream: int, seed: int) -> float:
    """An mIoU (fraction) with a known effect of each axis; encoders from elsewhere are as good as 4096 images."""
    images = 4096 if isinstance(pretrain, str) else pretrain
    score = 0.40 + 0.02 * np.log2(downstream / 32) + 0.01 * np.log2(1 + images / 64)
    return float(score - 0.03 * (intermediate != "none" and images > 0) + 0.004 * (seed - 2))


def accuracy(score: float) -> float:
    """Pixel accuracy that goes with an IoU of `score` in every class."""
    return 2 * score / (1 + score)


def segmentation(score: float, classes: tuple[str, ...] = PAPER) -> dict[str, Any]:
    """Metrics of a run with an IoU of `score` in every class."""
    wrong = round(RIGHT * (1 - score) / score / 2 / (len(classes) - 1))
    confusion = [[RIGHT if i == j else wrong for j in range(len(classes))] for i in range(len(classes))]
    return {
        "loss": 0.5,
        "pixel_accuracy": accuracy(score),
        "class_iou": dict.fromkeys(classes, score),
        "miou": score,
        "miou_per_image": score - 0.01,
        "confusion": confusion,
    }


def write_result(job: Job, metrics: dict, samples: int = 120, **changes: Any) -> None:
    """A metrics.json and history.jsonl as a job writes them; `changes` are laid over the provenance or the settings."""
    settings = {"epochs": 2, "learning_rate": 2e-3, "optimizer": "adamw", "precision": "fp32", "milestones": [1]}
    settings |= changes.pop("settings", {})
    cost = {"evaluate_seconds": 0.5, "startup_seconds": 2.0, "images_per_second": 60.0, "peak_memory_mb": 100.0}
    result = {
        "schema": 2,
        "stage": job.stage,
        "coordinates": {"study": "toy", "variant": job.variant, **job.coordinates},
        "metrics": metrics,
        "budget": {"images": 32, "epochs": 2, "steps": 10, "samples_seen": samples, "batch_size": 16},
        "cost": cost | {"train_seconds": samples / 60, "resumes": 0},
        "settings": {"model": {"width": 64}, job.section: settings},
        "provenance": EMPTY
        | {"code": "c0de", "settings": f"s{sorted(settings.items())!r}", "run_key": "r", "seed": job.seed}
        | {"device": "cpu", "device_name": "cpu", "started": "t0", "finished": "t1"}
        | {"compute": {"threads": 1, "float32_products": "float32", "attention": "explicit"}}
        | {"inputs": {"store": "s"} | ({"encoder": "e" * 64} if job.upstream else {})}
        | changes,
        "outputs": {job.checkpoint.name: "e" * 64},
    }
    job.folder.mkdir(parents=True, exist_ok=True)
    job.metrics.write_text(json.dumps(result))
    if job.stage == "geometry":
        return
    epochs = [
        {"epoch": e, "step": 5 * e, "loss": 1 / e, "learning_rate": 2e-3, "images_per_second": 60.0, "seconds": 1.0}
        for e in (1, 2)
    ]
    (job.folder / "history.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))


def write_arrays(job: Job, classes: tuple[str, ...] | None = None) -> None:
    """The examples.npz or similarity.npz of a job: the same images in every job of a stage."""
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (6, SIDE, SIDE, 3), dtype=np.uint8)
    if job.stage == "pretrain":
        mask = np.kron(random.random((6, 4, 4)) < 0.5, np.ones((4, 4), bool)).astype(bool)
        np.savez(job.folder / "examples.npz", images=images, mask=mask, reconstruction=images // 2)
    elif job.stage == "finetune":
        truth = random.integers(0, len(classes or PAPER), (6, SIDE, SIDE), dtype=np.uint8)
        iou, kind = np.linspace(0.2, 0.9, 6), np.array(["first", "first", "first", "best", "median", "worst"])
        named = {"classes": np.array(classes)} if classes else {}
        prediction = np.roll(truth, 1, axis=1)
        arrays = {"images": images, "truth": truth, "prediction": prediction, "iou": iou, "kind": kind}
        np.savez(job.folder / "examples.npz", **arrays, **named)
    elif job.stage == "geometry":
        maps, reference = random.random((3, PATCHES, PATCHES)), np.array([0, 5, 6])
        kind = np.array(["background", "foreground", "border"])
        np.savez(job.checkpoint, images=images[:3], reference=reference, kind=kind, maps=maps)


def fill(study: Study, classes: tuple[str, ...] | None = None) -> None:
    """Results of every job that the study and its variants need."""
    for job in study.jobs.values():
        place = job.coordinates
        if job.stage == "finetune":
            write_result(job, segmentation(miou(**place), classes or PAPER), samples=2 * place["downstream"])
        elif job.stage == "geometry":
            metrics = {
                "within_image_variance": 0.1,
                "across_image_variance": 0.02 * (place["seed"] if place["seed"] != "shared" else 1),
                "probe_accuracy": 0.75,
                "probe_accuracy_training": 0.8,
                "similarity_by_distance": list(np.linspace(1, 0, 15)),
            }
            write_result(job, metrics)
        else:
            metrics = {"loss": 0.3} if job.stage == "pretrain" else {"loss": 0.3, "accuracy": 0.6, "chance": 0.2}
            write_result(job, metrics, samples=2 * (1024 if place["pretrain"] == 1024 else 600))
        write_arrays(job, classes)


def change(job: Job, edit: Any) -> None:
    """Edit a job's metrics.json as a document."""
    result = json.loads(job.metrics.read_text())
    edit(result)
    job.metrics.write_text(json.dumps(result))


def run(study: Study, *coordinates: int | str) -> Job:
    """The fine-tuning job at (pretrain, intermediate, downstream, seed)."""
    [job] = (
        job for job in study.members[""] if job.stage == "finetune" and tuple(job.coordinates.values()) == coordinates
    )
    return job


def jobs(study: Study, stage: str) -> list[Job]:
    """The jobs of a stage of the study itself."""
    return [job for job in study.members[""] if job.stage == stage]
