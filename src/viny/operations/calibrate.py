"""A few steps of each kind of run on random images: how fast is this device?

    python -m viny.operations.calibrate < request.json

A process of its own, so that planning needs no torch. The request says model, settings and device; the answer, one
line of JSON, says seconds of start-up and, for each kind, images per second and seconds of measuring an image.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from viny.data.store import Store
from viny.stages import finetune, intermediate, pretrain
from viny.stages.run import Request, StageTask
from viny.training.device import select_device
from viny.training.loop import train
from viny.training.schedule import Schedule
from viny.training.state import RunState
from viny.training.update import Execution

_TESTED = 64  # images that are measured
_BATCHES = 4  # batches in one pass
_ENOUGH = 1.0  # seconds of training that tell the rate


def main() -> None:
    """Read a request, measure, print the answer."""
    asked = json.load(sys.stdin)
    compute = asked["compute"]
    device = select_device(compute["device"], compute["threads"], compute["matmul_precision"])
    answer: dict[str, Any] = {"startup_seconds": time.time() - asked["started"]}
    for kind, values in asked["sections"].items():
        answer[kind] = measure(kind, values, asked, device)
    print(json.dumps(answer))


def measure(kind: str, values: dict[str, Any], asked: dict[str, Any], device: Any) -> dict[str, float]:
    """Rates of one kind of run."""
    images = _BATCHES * values["batch_size"]
    values = {**values, "heldout_images": _TESTED, "test_images": _TESTED, "test_set": "fixed"}
    task = make_task(kind, values, asked, images, device)
    compute = {**asked["compute"], "compile": False}  # compiling takes longer than a plan may
    execution = Execution.from_settings(device, values["precision"], compute)
    steps, seconds = 1, 0.0
    _train(task, values, images, 1, execution)  # warms up
    while seconds < _ENOUGH:
        shown, seconds = _train(task, values, images, steps, execution)
        steps *= 4
    task.model.eval()
    task.evaluate()
    clock = time.perf_counter()
    task.evaluate()
    evaluation = time.perf_counter() - clock
    return {"images_per_second": shown / seconds, "evaluate_seconds_per_image": evaluation / _TESTED}


def make_task(kind: str, values: dict[str, Any], asked: dict[str, Any], images: int, device: Any) -> StageTask:
    """The task of the stage itself, on a store of random images."""
    stage, _, name = kind.partition(" ")
    args = argparse.Namespace(encoder=None, attention=asked["compute"]["attention"], seeding="everything")
    request = Request(stage, args, kind.replace(" ", "."), values, asked["model"], {})
    pixels = asked["store_pixels"] if stage == "pretrain" else asked["model"]["image_size"]
    store = random_store(_TESTED + images, pixels)
    if stage == "pretrain":
        return pretrain.Pretraining(request, store, images, device, 0)
    if stage == "finetune":
        return finetune.Segmentation(request, store, images, device, 0)
    task = intermediate.PatchClassification if name == "spatial_pets" else intermediate.ImageClassification
    train_split, test_split = intermediate.Split(store, _TESTED, images), intermediate.Split(store, 0, _TESTED)
    return task(request, train_split, test_split, device, 0)


def random_store(count: int, pixels: int) -> Store:
    """A store in memory that no file stands behind."""
    random = np.random.default_rng(0)
    return Store(
        manifest=Path("random"),
        dataset="pets",
        count=count,
        pixels=pixels,
        images=random.integers(0, 256, (count, pixels, pixels, 3), dtype=np.uint8),
        masks=random.integers(0, 3, (count, pixels, pixels), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % 37,
        aspect=np.ones(count, dtype=np.float32),
        names=[str(number) for number in range(count)],
        classes=[str(number) for number in range(37)],
        checksum="",
        crc32=np.zeros(count, dtype=np.uint32),
    )


def _train(task: StageTask, values: dict[str, Any], images: int, steps: int, execution: Execution) -> tuple[int, float]:
    """Images shown in `steps` updates of the real loop, and the seconds they took; of several passes without the first,
    in which a GPU's steps are recorded.
    """
    schedule = Schedule.from_settings(images, {**values, "steps": steps, "milestones": [], "learning_rate": 1e-6})
    with tempfile.TemporaryDirectory() as folder:
        state = RunState(Path(folder), "calibration", {"steps": steps}, Path(folder))
        with state.lock():
            position = train(task, schedule, execution, state, "calibration", save_every=1e9)
    first, last = position.history[0], position.history[-1]
    if first is last:
        return position.images, position.seconds
    return position.images - images, last["seconds"] - first["seconds"]


if __name__ == "__main__":
    main()
