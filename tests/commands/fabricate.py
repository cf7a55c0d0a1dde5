"""Invented results in the files and formats of the stages, and helpers to damage them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from viny.config import load
from viny.datasets.store import DIGESTS, FORMAT
from viny.fingerprint import fingerprint
from viny.grid import Job, StoreSpec, Study
from viny.survey import rows_checksum

CONFIG: dict[str, Any] = {
    "study": "toy",
    "grid": {"pretrain": [0, 256], "intermediate": ["none", "cls_intel"], "downstream": [32, 128], "seeds": [1, 2]},
    "model": {"image_size": 32, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, "head_width": 8, "mlp_width": 32},
    "pretrain": {"epochs": 4, "milestones": [], "heldout_images": 16},
    "intermediate": {"cls_intel": {"epochs": 4, "milestones": []}},
    "finetune": {"epochs": 4, "milestones": [], "test_images": 20},
}
DEVICE = "processor of the tests"
RATE = 100.0  # images per second of every invented run
INTEL_TRAIN, INTEL_TEST = 600, 120
FILES = {
    "pretrain": ("encoder.safetensors", "history.jsonl", "examples.npz"),
    "intermediate": ("encoder.safetensors", "history.jsonl"),
    "finetune": ("model.safetensors", "history.jsonl", "examples.npz"),
    "geometry": ("similarity.npz",),
}
# What results of format 1 do not record: it was not there yet, or had another name.
LATER = ("task", "count", "timm")


def make_study(config: dict[str, Any]) -> Study:
    """The study of some settings."""
    return Study(load(config))


def fill(study: Study, version: int = 2) -> None:
    """Stores, and results of all jobs."""
    for store in study.stores:
        write_store(store)
    for job in study.jobs.values():
        write_result(job, version)


def write_store(spec: StoreSpec, content: int = 0) -> None:
    """Everything of a store but its images."""
    tests = INTEL_TEST if spec.tests is None else spec.tests
    count = tests + (INTEL_TRAIN if spec.images is None else spec.images)
    spec.folder.mkdir(parents=True, exist_ok=True)
    np.random.default_rng(content).integers(0, 2**63, count, dtype="<u8").tofile(spec.folder / DIGESTS)
    manifest = {"format": FORMAT, "name": spec.name, "pixels": spec.pixels, "count": count, "tests": tests,
                "classes": [], "mask_classes": []}  # fmt: skip
    spec.manifest.write_text(json.dumps(manifest))


def write_result(job: Job, version: int = 2, **changes: Any) -> None:
    """The files of one job as its stage writes them; `changes` replace entries of provenance."""
    job.folder.mkdir(parents=True, exist_ok=True)
    outputs = {}
    for name in FILES[job.stage]:
        content = f"{name} of {job.folder}".encode()
        (job.folder / name).write_bytes(content)
        outputs[name] = hashlib.sha256(content).hexdigest()
    images = job.images or INTEL_TRAIN
    seen = 0 if job.stage == "geometry" else job.settings.samples_seen(images)
    inputs = {"store": rows_checksum(job.store, images) if version == 2 else checksum(f"{job.store.name} {images}")}
    if job.encoder:
        inputs["encoder"] = hashlib.sha256(job.encoder.read_bytes()).hexdigest()
    settings, coordinates = job.recorded_settings, {"study": job.study, "variant": job.variant, **job.coordinates}
    budget = {"images": images, "epochs": 4.0, "steps": seen // 64, "samples_seen": seen, "batch_size": 64}
    key: dict[str, Any] = {"key": job.key}
    if version == 1:
        if not job.variant:
            del coordinates["variant"]
        for section in settings.values():
            for name in LATER if isinstance(section, dict) else ():
                section.pop(name, None)
        budget["image_passes"] = budget.pop("samples_seen")
        key = {}
    document = {
        "schema": version,
        "stage": job.stage,
        "coordinates": coordinates,
        "metrics": metrics(job),
        "budget": budget,
        "cost": {"train_seconds": seen / RATE, "evaluate_seconds": 0.5, "startup_seconds": 2.0,
                 "images_per_second": RATE, "peak_memory_mb": 100.0, "resumes": 0},
        "settings": settings,
        "provenance": {"viny": "0.1.0", "commit": None, "code": job.code, "settings": fingerprint(settings), **key,
                       "run_key": "k", "seed": 1, "python": "3.12", "packages": {}, "inputs": inputs, "device": "cpu",
                       "device_name": DEVICE, "compute": {"threads": 1}, "host": "h", "command": [],
                       "started": "2100-01-01T10:00:00+00:00", "finished": "2100-01-01T10:01:00+00:00", **changes},
        "outputs": outputs,
    }  # fmt: skip
    job.metrics.write_text(json.dumps(document))


def metrics(job: Job) -> dict[str, Any]:
    """Valid metrics of a stage."""
    if job.stage == "pretrain":
        return {"loss": 0.5}
    if job.stage == "intermediate":
        return {"loss": 1.0, "accuracy": 0.5, "chance": 0.2}
    if job.stage == "geometry":
        return {"within_image_variance": 0.1, "across_image_variance": 0.1, "probe_accuracy": 0.7,
                "probe_accuracy_training": 0.7, "similarity_by_distance": [1.0, None]}  # fmt: skip
    confusion, n = [[4, 2, 0], [2, 8, 1], [0, 1, 2]], range(3)
    iou = [confusion[i][i] / (sum(confusion[i]) + sum(row[i] for row in confusion) - confusion[i][i]) for i in n]
    return {
        "loss": 1.0,
        "miou_per_image": 0.4,
        "class_iou": dict(zip(("foreground", "background", "border"), iou, strict=True)),
        "miou": sum(iou) / 3,
        "pixel_accuracy": sum(confusion[i][i] for i in n) / sum(map(sum, confusion)),
        "confusion": confusion,
    }


def jobs(study: Study, stage: str, variant: str = "") -> list[Job]:
    """The jobs of a stage, without those of other variants."""
    return [job for job in study.jobs.values() if job.stage == stage and job.variant == variant]


def change(job: Job, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Apply `edit` to the metrics.json of a job."""
    document = json.loads(job.metrics.read_text())
    edit(document)
    job.metrics.write_text(json.dumps(document))


def checksum(text: str) -> str:
    """An invented checksum."""
    return hashlib.sha256(text.encode()).hexdigest()


def remove(job: Job) -> None:
    """Take the result of a job away."""
    for path in job.folder.iterdir():
        path.unlink()


def write_log(path: Path, *lines: str) -> None:
    """A log with times and levels: `ERROR the loss is nan`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"2100-01-01 10:00:00,000 {x}\n" if x.split(" ")[0].isupper() else f"{x}\n" for x in lines)
    path.write_text(text)
