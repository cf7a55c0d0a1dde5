"""A study with invented results, in the files that the stages write."""

import json
from pathlib import Path

import numpy as np

from viny.study import Study

SIDE, PATCHES = 16, 4


def declaration(folder: Path, **grid) -> dict:
    """A config of a small study below `folder`."""
    axes = {
        "pretrain": [0, 256, 1024],
        "intermediate": ["none", "cls_intel"],
        "downstream": [32, 128],
        "seeds": [1, 2, 3],
    }
    return {"study": "toy", "results": str(folder), "grid": axes | grid, "geometry": {"enabled": True}}


def miou(pretrain: int, intermediate: str, downstream: int, seed: int) -> float:
    """An mIoU (fraction) with a known effect of each axis."""
    score = 0.40 + 0.02 * np.log2(downstream / 32) + 0.01 * np.log2(1 + pretrain / 64)
    return float(score - 0.03 * (intermediate != "none" and pretrain > 0) + 0.004 * (seed - 2))


def write_result(job, metrics: dict, settings: dict | None = None, code: str = "c0de", passes: int = 100) -> None:
    """A metrics.json and history.jsonl as a stage writes them."""
    settings = settings or {
        "epochs": 2,
        "learning_rate": 2e-3,
        "optimizer": "adamw",
        "precision": "fp32",
        "milestones": [1],
    }
    result = {
        "schema": 1,
        "stage": job.stage,
        "coordinates": {"study": "toy", **job.coordinates},
        "metrics": metrics,
        "budget": {"images": 32, "epochs": 2, "steps": 10, "image_passes": passes, "batch_size": 16},
        "cost": {
            "train_seconds": 1.5,
            "evaluate_seconds": 0.5,
            "startup_seconds": 2.0,
            "images_per_second": 60.0,
            "peak_memory_mb": 100.0,
            "resumes": 0,
        },
        "settings": {"model": {"width": 64}, job.kind.replace(" ", "."): settings},
        "provenance": {
            "code": code,
            "settings": f"s{sorted(settings.items())!r}"[:40],
            "device_name": "cpu",
            "host": "h",
            "commit": "abc",
            "python": "3.12",
            "packages": {"torch": "2"},
            "inputs": {} if job.stage == "pretrain" else {"store": "s", "encoder": "e1"},
            "started": "t0",
            "finished": "t1",
        },
    }
    if job.stage in ("pretrain", "intermediate"):
        result["outputs"] = {"encoder.safetensors": "e1"}
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "metrics.json").write_text(json.dumps(result))
    if job.stage == "geometry":
        return
    epochs = [
        {"epoch": e, "step": 5 * e, "loss": 1 / e, "learning_rate": 2e-3, "images_per_second": 60.0, "seconds": 1.0}
        for e in (1, 2)
    ]
    (job.folder / "history.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))


def write_arrays(job) -> None:
    """The examples.npz or similarity.npz of a job: the same images in every job of a stage."""
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (6, SIDE, SIDE, 3), dtype=np.uint8)
    if job.stage == "pretrain":
        mask = np.kron(random.random((6, 4, 4)) < 0.5, np.ones((4, 4), bool)).astype(bool)
        np.savez(
            job.folder / "examples.npz",
            images=images,
            mask=mask,
            reconstruction=images // 2,
            names=np.array(list("abcdef")),
        )
    elif job.stage == "finetune":
        truth = random.integers(0, 3, (6, SIDE, SIDE), dtype=np.uint8)
        np.savez(
            job.folder / "examples.npz",
            images=images,
            truth=truth,
            prediction=truth,
            names=np.array(list("abcdef")),
            iou=np.linspace(0.2, 0.9, 6),
            kind=np.array(["first", "first", "first", "best", "median", "worst"]),
        )
    elif job.stage == "geometry":
        np.savez(
            job.folder / "similarity.npz",
            images=images[:3],
            reference=np.array([0, 5, 6]),
            kind=np.array(["background", "foreground", "border"]),
            maps=random.random((3, PATCHES, PATCHES)),
            distances=np.arange(15),
            mean=np.linspace(1, 0, 15),
            se=np.full(15, 0.01),
        )


def fill(study: Study) -> None:
    """Results of every job that the study declares."""
    for job in study.jobs():
        place = job.coordinates
        if job.stage == "finetune":
            score = miou(**place)
            iou = {"foreground": score, "background": score, "border": score}
            metrics = {
                "loss": 0.5,
                "pixel_accuracy": score + 0.2,
                "class_iou": iou,
                "miou": score,
                "miou_per_image": score - 0.01,
                "confusion": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            }
            write_result(job, metrics, passes=2 * place["downstream"])
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
            write_result(job, metrics, passes=2 * max(place["pretrain"], 600))
        write_arrays(job)
