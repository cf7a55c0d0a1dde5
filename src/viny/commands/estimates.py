"""How many images jobs are shown and how long they take, by the cost of finished runs on the same device."""

import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from viny.commands.terminal import plural
from viny.config.sections import Compute
from viny.datasets.parallel import cores
from viny.datasets.store import read_manifest
from viny.grid import Job, StoreSpec
from viny.provenance import processor
from viny.result import Budget, Cost

PUBLISHED = {"intel": (14034, 3000), "pets": (6349, 1000)}  # training and test images of the paper's data sets
# Settings that the time of a run depends on, beside the model and the number of images shown.
_TIMED = ("precision", "batch_size", "test_images", "heldout_images", "images")


class Rate(NamedTuple):
    """What runs of one pace cost, in seconds: to start, to train on an image, and to measure in the end."""

    startup: float
    image: float
    evaluate: float
    source: str  # `12 finished runs` or `calibration`


def this_device(compute: Compute) -> tuple[str, int]:
    """Name of the device that `compute.device` means here, and how many jobs fit on it; without importing torch."""
    if compute.device != "cpu" and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            names = answer.stdout.strip().splitlines()
            return names[0].strip(), len(names) * compute.jobs_per_gpu
    return processor(), max(1, cores() // compute.threads)


@cache
def pace(job: Job) -> str:
    """What the time of a run depends on beside the number of images and the device."""
    return _pace(job.recorded_settings, job.coordinates)


class Finished:
    """What finished runs cost, by pace, as far as it tells how long some jobs take.

    Args:
        device: of which runs count; None for those on any.
    """

    def __init__(self, jobs: Iterable[Job], device: str | None, threads: int):
        self._wanted, self._device, self._threads = {pace(job) for job in jobs}, device, threads
        self._costs: dict[str, list[tuple[Cost, int]]] = defaultdict(list)

    def add(self, path: Path) -> None:
        """Count the run that wrote this metrics.json, if it is of a wanted pace."""
        with suppress(OSError, LookupError, TypeError, ValueError, AttributeError):  # damaged: `viny verify` says so
            run = json.loads(path.read_bytes())
            found, made = _pace(run["settings"], run["coordinates"]), run["provenance"]
            alike = self._device is None or made["device_name"] == self._device
            alike &= made["device"] == "cuda" or made["compute"]["threads"] == self._threads
            if found in self._wanted and alike:
                cost, shown = Cost.model_validate(run["cost"]), Budget.model_validate(run["budget"]).samples_seen
                self._costs[found].append((cost, shown))

    def add_all(self, results: Path) -> "Finished":
        """Count all runs of all studies below `results`."""
        for path in results.glob("*/[!.]*/**/metrics.json") if self._wanted else ():
            self.add(path)
        return self

    def rates(self) -> dict[str, Rate]:
        """Rates by pace."""
        return {
            found: Rate(
                startup=median(cost.startup_seconds for cost, _ in each),
                image=sum(cost.train_seconds for cost, _ in each) / max(sum(shown for _, shown in each), 1),
                evaluate=median(cost.evaluate_seconds for cost, _ in each),
                source=plural(len(each), "finished run"),
            )
            for found, each in self._costs.items()
        }


def seconds_of(jobs: Iterable[Job], rates: Mapping[str, Rate]) -> dict[Job, float]:
    """Device time of the jobs of which it is known."""
    found = {}
    for job in jobs:
        rate, shown = rates.get(pace(job)), samples(job)
        if rate and shown:
            found[job] = rate.startup + rate.image * shown + rate.evaluate
    return found


def elapsed(seconds: Mapping[Job, float], at_once: int) -> float:
    """Seconds until jobs are done, `at_once` at a time, each after the job that it starts from."""

    def chain(job: Job | None) -> float:
        return seconds.get(job, 0.0) + chain(job.upstream) if job else 0.0

    return max(sum(seconds.values()) / at_once, *map(chain, seconds), 0.0)


def samples(job: Job) -> int:
    """Images that a job shows to the model, repeats counted; 0 if it takes all images and their number is not known."""
    images = job.images if job.images is not None else (store_images(job.store) or (0, 0))[0]
    return job.settings.samples_seen(images) if images else 0


def store_images(store: StoreSpec) -> tuple[int, int] | None:
    """Training and test images of a store, by its manifest or by what its data set is known to have; else None."""
    manifest = read_manifest(store.folder)
    if manifest:
        return manifest["count"] - manifest["tests"], manifest["tests"]
    known = PUBLISHED.get(store.spec.layout if store.spec.layout != "auto" else store.name)
    if store.procedural:
        count = getattr(store.procedural, store.name)
        known = (count - count // 6, count // 6) if store.name == "intel" else (count, 0)
    tests, images = store.tests, store.images
    if known:
        tests = known[1] if tests is None else tests
        images = sum(known) - tests if images is None else images
    return None if images is None or tests is None else (images, tests)


def _pace(settings: Mapping[str, Any], coordinates: Mapping[str, Any]) -> str:
    section = next((name for name in settings if name not in ("model", "seeding")), "")
    timed = {name: settings[section].get(name) for name in _TIMED}
    start = coordinates["pretrain"] if isinstance(coordinates["pretrain"], str) else ""  # it has sizes of its own
    return json.dumps([section, settings["model"], timed, start], sort_keys=True)
