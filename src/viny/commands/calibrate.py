"""A few real steps of jobs on random images: how fast is this device?"""

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from viny import encoders, tasks
from viny.commands.estimates import Rate, pace, samples, store_images
from viny.config.sections import Compute
from viny.datasets.store import SIGNATURE, Store
from viny.encoders import build
from viny.grid import Job
from viny.logs import log
from viny.processes import age
from viny.tasks.base import Context
from viny.training.device import select_device
from viny.training.loop import train
from viny.training.rng import torch_stream
from viny.training.schedule import Schedule
from viny.training.state import RunState
from viny.training.update import Execution

_STARTUP = age()  # most of it was spent on importing torch
_TESTED = 64  # images that are measured
_BATCHES = 4  # batches in one pass
_ENOUGH = 1.0  # seconds of training that tell the rate


def calibrate(jobs: Sequence[Job], compute: Compute) -> tuple[dict[str, Rate], list[str]]:
    """Rates by pace, and why some are unknown."""
    rates: dict[str, Rate] = {}
    unknown = []
    for place, job in {pace(job): job for job in jobs}.items():
        log.info("measuring a few steps of %s", job.kind)
        logging.disable()  # what a run says of itself
        try:
            rates[place] = measure(job, compute)
        except Exception as error:  # whatever would end a run
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            unknown.append(f"the time of {job.kind}, since it fails on random images: {reason}")
        finally:
            logging.disable(logging.NOTSET)
    return rates, unknown


def measure(job: Job, compute: Compute) -> Rate:
    """What a job costs on this device; without `compute.compile`, which takes longer than a plan may."""
    compute = compute.model_copy(update={"compile": False})
    device, images = select_device(compute), _BATCHES * getattr(job.settings, "batch_size", _TESTED)
    settings: Any = job.settings
    encoder = encoders.load_start(job) if job.upstream is None else build(job.model, torch_stream(0, "init"))
    encoder.set_attention(compute.attention)
    context = Context(settings, random_store(job, images), encoder.to(device), device, 0, images, _TESTED)
    task = tasks.load(job.task).Task(context)
    steps, seconds, shown = 2 * _BATCHES, 0.0, 1
    while task.trainable and seconds < _ENOUGH:
        slow = settings.model_copy(update={"steps": steps, "milestones": (), "learning_rate": 1e-6})
        execution = Execution.from_settings(device, settings.precision, compute)
        with tempfile.TemporaryDirectory() as folder:
            state = RunState(Path(folder), "calibration", {}, Path(folder))
            with state.lock():
                history = train(task, Schedule(images, slow), execution, state, "calibration").history
        # The first pass warms up; on a GPU its steps are captured.
        shown, seconds = images * (len(history) - 1), history[-1]["seconds"] - history[0]["seconds"]
        steps *= 4
    task.model.eval()
    task.evaluate()
    clock = time.perf_counter()
    task.evaluate()
    evaluation = time.perf_counter() - clock
    tests = (store_images(job.store) or (0, _TESTED))[1]
    share = tests / _TESTED if task.trainable else samples(job) / settings.samples_seen(images)
    return Rate(_STARTUP, seconds / shown, evaluation * share, "calibration")


def random_store(job: Job, images: int) -> Store:
    """A store in memory that no file stands behind."""
    random, count, side, classes = np.random.default_rng(0), _TESTED + images, job.store.pixels, ["a", "b", "c"]
    return Store(
        folder=Path("random"),
        name=job.store.name,
        count=count,
        tests=_TESTED,
        pixels=side,
        images=random.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        masks=random.integers(0, len(classes), (count, side, side), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % len(classes),
        aspect=np.ones(count, dtype=np.float32),
        names=[str(number) for number in range(count)],
        classes=classes,
        mask_classes=classes,
        numbers=np.zeros((count, 4), dtype=np.int64),
        signatures=np.zeros((count, SIGNATURE), dtype=np.uint8),
    )
