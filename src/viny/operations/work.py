"""How much there is to do: images, image passes and bytes, from the config alone."""

import json
import os
from collections.abc import Mapping
from typing import Any

from viny.config import PETS_IMAGES
from viny.grid import ALL, PETS_TASKS, Job, Store
from viny.study import Study

INTEL_TRAIN, INTEL_TEST = 14034, 3000  # Intel Image Classification
_FLOAT = 4  # bytes
_EXAMPLES = 6  # images' worth of bytes in examples.npz, for each of about ten examples


def training_images(study: Study, job: Job) -> int:
    """Different images that a job trains on."""
    match job.stage:
        case "pretrain":
            return job.coordinates["pretrain"]
        case "finetune":
            return job.coordinates["downstream"]
        case "geometry":
            return study.config["geometry"]["images"]
    task = job.coordinates["intermediate"]
    asked = study.config["intermediate"][task]["images"]
    if asked is not None:
        return asked
    held_out = study.config["finetune"]["test_images"] if task in PETS_TASKS else 0
    return store_images(study, study.task_stores(task)["train"]) - held_out


def tested_images(study: Study, kind: str) -> int:
    """Images on which a run of a kind is measured."""
    if kind == "pretrain":
        return study.config["pretrain"]["heldout_images"]
    if kind == "intermediate cls_intel":
        return store_images(study, study.task_stores("cls_intel")["test"])
    return study.config["finetune"]["test_images"]


def image_passes(study: Study, job: Job) -> int:
    """Images that a job shows to the model for training, repeats counted; for geometry, those it looks at."""
    images = training_images(study, job)
    if job.stage == "geometry":
        values = study.config["geometry"]
        return study.config["finetune"]["test_images"] + images * (1 + values["probe_epochs"])
    section = f"intermediate.{job.coordinates['intermediate']}" if job.stage == "intermediate" else job.stage
    return passes(study.section(section), images)


def passes(values: Mapping[str, Any], images: int) -> int:
    """Image passes of a training section's budget, as `viny.training.schedule.Schedule` counts them."""
    steps_per_epoch = -(-images // values["batch_size"])
    full, rest = divmod(values["steps"] or values["epochs"] * steps_per_epoch, steps_per_epoch)
    return full * images + min(rest * values["batch_size"], images)


def store_images(study: Study, store: Store) -> int:
    """Images in a part of a data set; for all of it, what its manifest says or the data set is known to have."""
    if store.count is not None:
        return store.count
    try:
        return json.loads(study.manifest(store).read_text(encoding="utf-8"))["count"]
    except (OSError, ValueError, KeyError):
        pass
    if not study.procedural:
        return {"pets": PETS_IMAGES, "intel-train": INTEL_TRAIN, "intel-test": INTEL_TEST}[store.dataset]
    if store.dataset == "pets":
        return study.procedural["pets"]
    test = study.procedural["intel"] // 6  # as `viny.data.procedural` splits them
    return test if store.dataset == "intel-test" else study.procedural["intel"] - test


def decoded_images(study: Study, store: Store) -> int:
    """Images that are already in the folder of a store."""
    try:
        state = (study.manifest(store).parent / "state.json").read_text(encoding="utf-8")
        return json.loads(state)["rows"]
    except (OSError, ValueError, KeyError):
        return 0


def image_bytes(store: Store) -> int:
    """Bytes of one stored image, with its trimap if it has one."""
    return store.pixels**2 * (4 if store.dataset == "pets" else 3)


def part_order(store: Store) -> float:
    """Sorts the parts of a data set by size."""
    return float("inf") if store.part == ALL else store.count


def encoder_parameters(model: Mapping[str, int]) -> int:
    """Parameters of the encoder (4,842,880 at the paper's sizes)."""
    width, inner, hidden = model["width"], model["heads"] * model["head_width"], model["mlp_width"]
    patch = 3 * model["patch_size"] ** 2
    tokens = (model["image_size"] // model["patch_size"]) ** 2 + 1
    embedding = 2 * patch + patch * width + width + 2 * width + tokens * width + width
    attention = width * 3 * inner + inner * width + width
    mlp = width * hidden + hidden + hidden * width + width
    return embedding + model["depth"] * (attention + mlp + 4 * width) + 2 * width


def result_bytes(study: Study, stage: str) -> int:
    """Bytes that the results of one job take, about."""
    model = study.config["model"]
    encoder, examples = encoder_parameters(model), 10 * _EXAMPLES * model["image_size"] ** 2
    match stage:
        case "pretrain":
            return encoder * _FLOAT + examples
        case "intermediate":
            return encoder * _FLOAT
        case "finetune":
            return (encoder + (model["width"] + 1) * 3 * model["patch_size"] ** 2) * _FLOAT + examples
    return examples


def state_bytes(study: Study) -> int:
    """Bytes of the saved state of one running job: two positions, each of weights and two moments."""
    return 2 * 3 * encoder_parameters(study.config["model"]) * _FLOAT


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
