"""Invented results in the files and formats of the stages, and helpers to damage them."""

import hashlib
import json

from viny.grid import OUTPUTS, Job
from viny.operations.inputs import encoder_of, section_of, stores_of
from viny.operations.status import job_log
from viny.provenance import fingerprint
from viny.study import Study

CONFIG = {
    "study": "toy",
    "grid": {"pretrain": [0, 256], "intermediate": ["none", "cls_intel"], "downstream": [32, 128], "seeds": [1, 2]},
    "model": {"image_size": 32, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, "head_width": 8, "mlp_width": 32},
    "pretrain": {"epochs": 4, "milestones": [], "heldout_images": 16},
    "finetune": {"epochs": 4, "milestones": [], "test_images": 20},
}
DEVICE = "processor of the tests"
RATE = 100.0  # images per second of every invented run


def fill(study: Study) -> None:
    """Results of all jobs, and the manifests of all stores."""
    for store in study.stores():
        manifest = study.manifest(store)
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"checksum": checksum(str(manifest)), "count": store.count}))
    for job, member in study.all_jobs().items():
        write_result(member, job)


def write_result(study: Study, job: Job, **changes) -> dict:
    """The files of one job as its stage writes them; `changes` replace entries of provenance."""
    job.folder.mkdir(parents=True, exist_ok=True)
    outputs = {}
    for name in OUTPUTS[job.stage]:
        if name != "metrics.json":
            content = f"{name} of {job.folder}".encode()
            (job.folder / name).write_bytes(content)
            outputs[name] = hashlib.sha256(content).hexdigest()
    inputs = {role: checksum(str(study.manifest(store))) for role, store in stores_of(study, job).items()}
    if encoder := encoder_of(study, job):
        inputs["encoder"] = hashlib.sha256(encoder.read_bytes()).hexdigest()
    section = section_of(job)
    values = {name: dict(study.section(name)) for name in ("model", section)}
    values[section].pop("enabled", None)
    values["seeding"] = study.config["seeding"]
    passes = 4 * job.coordinates.get("downstream", job.coordinates["pretrain"] or 720)
    steps = 4 * -(-passes // 256)
    budget = {"images": passes // 4, "epochs": 4.0, "steps": steps, "image_passes": passes, "batch_size": 64}
    document = {
        "schema": 1,
        "stage": job.stage,
        "coordinates": {"study": study.name} | ({"variant": study.variant} if study.variant else {}) | job.coordinates,
        "metrics": metrics(job),
        "budget": budget,
        "cost": {"train_seconds": passes / RATE, "evaluate_seconds": 0.5, "startup_seconds": 2.0,
                 "images_per_second": RATE, "peak_memory_mb": 100.0, "resumes": 0},
        "settings": values,
        "provenance": {"viny": "0.1.0", "commit": None, "code": f"code of {job.stage}", "settings": fingerprint(values),
                       "run_key": "k", "seed": 1, "python": "3.12", "packages": {}, "inputs": inputs, "device": "cpu",
                       "device_name": DEVICE, "compute": {"threads": 1}, "host": "h", "command": [],
                       "started": "2100-01-01T10:00:00+00:00", "finished": "2100-01-01T10:01:00+00:00", **changes},
        "outputs": outputs,
    }  # fmt: skip
    job.metrics.write_text(json.dumps(document))
    return document


def metrics(job: Job) -> dict:
    """Valid metrics of a stage."""
    if job.stage == "pretrain":
        return {"loss": 0.5}
    if job.stage == "intermediate":
        return {"loss": 1.0, "accuracy": 0.5, "chance": 0.2}
    if job.stage == "geometry":
        return {"within_image_variance": 0.1, "across_image_variance": 0.1, "probe_accuracy": 0.7,
                "probe_accuracy_training": 0.7, "similarity_by_distance": [1.0, None]}  # fmt: skip
    return {"loss": 1.0, "miou_per_image": 0.4, **_scores([[4, 2, 0], [2, 8, 1], [0, 1, 2]])}


def _scores(confusion: list[list[int]]) -> dict:
    names, n = ("foreground", "background", "border"), range(3)
    iou = [confusion[i][i] / (sum(confusion[i]) + sum(row[i] for row in confusion) - confusion[i][i]) for i in n]
    accuracy = sum(confusion[i][i] for i in n) / sum(map(sum, confusion))
    return {
        "class_iou": dict(zip(names, iou, strict=True)),
        "miou": sum(iou) / 3,
        "pixel_accuracy": accuracy,
        "confusion": confusion,
    }


def change(job: Job, edit) -> None:
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


def write_log(study: Study, job: Job, text: str) -> None:
    """The log of a job."""
    path = job_log(study, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
