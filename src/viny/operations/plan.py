"""`viny plan`: what a run would do, how long it would take and how much disk it needs.

The estimate is kept in `<results>/<study>/plan.json`, each job's with it; `viny plan --review` compares it with what
was measured.
"""

import heapq
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from viny.data.files import write_atomically
from viny.grid import Job, Store
from viny.operations import decoding, rates, work
from viny.operations.inputs import encoder_of, stores_of
from viny.operations.pending import Pending, find_pending
from viny.operations.rates import Device, Rates
from viny.study import Study

FILE = "plan.json"


@dataclass
class Task:
    """One Snakemake job in time.

    Attributes:
        name: the file or folder it makes. seconds: how long it takes. after: names that must be there before.
        priority: larger ones start first.
    """

    name: str
    seconds: float
    after: list[str] = field(default_factory=list)
    priority: float = 0.0


@dataclass
class Line:
    """One kind of job in the table.

    Attributes:
        total, pending: jobs of the study, and those that would run. images: image passes (decoded images) of these.
        seconds: device time of the pending ones, None if unknown. rate: images per second. source: where it is from.
    """

    kind: str
    total: int
    pending: int
    images: int
    seconds: float | None
    rate: float | None
    source: str


@dataclass
class Plan:
    """A plan; `elapsed` and the seconds of a line are None where no rate is known."""

    study: str
    cells: int
    cells_pending: int
    lines: list[Line]
    elapsed: float | None
    at_once: int
    device: Device
    pending: Pending
    disk: dict[str, int]
    estimates: dict[str, float]

    @property
    def device_seconds(self) -> float | None:
        """All device time together."""
        known = [line.seconds for line in self.lines if line.kind != "images"]
        return None if None in known else sum(known)


def plan(study: Study, configfile: Path, at_once: int | None = None, as_json: bool = False) -> int:
    """Make a plan, keep it and print it."""
    from viny.operations.planview import render, summary

    made = make_plan(study, configfile, at_once)
    print(json.dumps(summary(made)) if as_json else "\n".join(render(study, made)))
    return 0


def make_plan(study: Study, configfile: Path, at_once: int | None = None) -> Plan:
    """Find out what there is to do and how long it takes; the estimates are kept."""
    device = rates.this_device(study.config["compute"]["device"])
    if at_once is None:
        at_once = max(1, work.cores() // study.config["compute"]["threads"]) if device.kind == "cpu" else 1
    pending = find_pending(study, configfile)
    kept = read_kept(study)
    owners = study.all_jobs()
    calibrations = kept.get("calibrations", {})
    kinds = {member.variant: {job.kind for job in pending.jobs if owners[job] is member} for member in study.family}
    known = rates.by_variant(study, kinds, device, calibrations)
    seconds = {}
    for job in pending.jobs:
        rate = known.get((owners[job].variant, job.kind))
        seconds[job] = rate and rate.seconds(work.image_passes(owners[job], job))
    image_rate = decoding.rate(study) if pending.stores else 0.0
    tasks = _tasks(study, pending, seconds, image_rate)
    found = Plan(
        study=study.name,
        cells=sum(job.stage == "finetune" for job in owners),
        cells_pending=sum(job.stage == "finetune" for job in pending.jobs),
        lines=_lines(study, pending, seconds, known, image_rate),
        elapsed=None if None in seconds.values() else makespan(tasks, at_once),
        at_once=at_once,
        device=device,
        pending=pending,
        disk=_disk(study, pending, at_once),
        estimates={str(job.folder): value for job, value in seconds.items() if value is not None},
    )
    _keep(study, kept, found, known, calibrations)
    return found


def makespan(tasks: Iterable[Task], at_once: int) -> float:
    """Seconds until all tasks are done when `at_once` run at a time, each as soon as what it needs is there."""
    tasks = {task.name: task for task in tasks}
    waiting = {name: sum(need in tasks for need in task.after) for name, task in tasks.items()}
    users: dict[str, list[str]] = {}
    for name, task in tasks.items():
        for need in task.after:
            users.setdefault(need, []).append(name)
    ready = [(-tasks[name].priority, number, name) for number, name in enumerate(tasks) if not waiting[name]]
    heapq.heapify(ready)
    order = {name: number for number, name in enumerate(tasks)}
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < at_once:
            name = heapq.heappop(ready)[2]
            heapq.heappush(running, (now + tasks[name].seconds, name))
        now, done = heapq.heappop(running)
        for user in users.get(done, []):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (-tasks[user].priority, order[user], user))
    return now


def read_kept(study: Study) -> dict[str, Any]:
    """The plan.json of a study, empty if there is none."""
    try:
        kept = json.loads((study.folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(study: Study, kept: dict, made: Plan, known: Rates, calibrations: dict) -> None:
    """Write plan.json: a job that is done by now keeps the estimate that was made before."""
    if not made.pending.jobs:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    estimates = {folder: {"seconds": seconds, "made": now} for folder, seconds in made.estimates.items()}
    document = {
        "study": study.name,
        "made": now,
        "device": made.device.kind,
        "device_name": made.device.name,
        "at_once": made.at_once,
        "elapsed_seconds": made.elapsed,
        "rates": {**kept.get("rates", {}), **rates.as_json(known)},
        "estimates": {**kept.get("estimates", {}), **estimates},
        "calibrations": calibrations,
    }
    study.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(study.folder / FILE, json.dumps(document, indent=1) + "\n")


def _tasks(study: Study, pending: Pending, seconds: Mapping[Job, float | None], image_rate: float) -> list[Task]:
    tasks, owners = [], study.all_jobs()
    for store, images in decoding.images_to_decode(study, pending.stores).items():
        decoded = decoding.STARTUP + images / image_rate
        tasks.append(Task(str(study.manifest(store)), decoded, priority=1e9 + images))
    for job, takes in seconds.items():
        if takes is not None:
            needs = [str(study.manifest(store)) for store in stores_of(owners[job], job).values()]
            encoder = encoder_of(owners[job], job)
            priority = job.coordinates["pretrain"] if job.stage == "pretrain" else 0
            tasks.append(Task(str(job.folder), takes, needs + ([str(encoder.parent)] if encoder else []), priority))
    return tasks


def _lines(
    study: Study, pending: Pending, seconds: Mapping[Job, float | None], known: Rates, image_rate: float
) -> list[Line]:
    to_decode = decoding.images_to_decode(study, pending.stores)
    images = sum(to_decode.values())
    decoded = len(to_decode) * decoding.STARTUP + (images / image_rate if image_rate else 0.0)
    source = "measured now" if to_decode else ""
    lines = [Line("images", len(study.stores()), len(to_decode), images, decoded, image_rate or None, source)]
    owners = study.all_jobs()
    for kind in dict.fromkeys(job.kind for job in owners):
        jobs = [job for job in pending.jobs if job.kind == kind]
        passes = {job: work.image_passes(owners[job], job) for job in jobs}
        shown, total = sum(passes.values()), sum(job.kind == kind for job in owners)
        if not jobs:
            lines.append(Line(kind, total, 0, 0, 0.0, None, ""))
        elif any(seconds[job] is None for job in jobs):
            lines.append(Line(kind, total, len(jobs), shown, None, None, "unknown"))
        else:
            used = {job: known[owners[job].variant, kind] for job in jobs}
            rate = shown / sum(passes[job] / used[job].images_per_second for job in jobs)
            sources = "; ".join(dict.fromkeys(found.source for found in used.values()))
            lines.append(Line(kind, total, len(jobs), shown, sum(seconds[job] for job in jobs), rate, sources))
    return lines


def _disk(study: Study, pending: Pending, at_once: int) -> dict[str, int]:
    """Bytes to come, by what they are for, and those that are free."""
    results = {"pretrain": 0, "intermediate": 0, "finetune": 0, "geometry": 0}
    for job in pending.jobs:
        if not job.metrics.exists():
            results[job.stage] += work.result_bytes(study, job.stage)
    stores: dict[Store, int] = decoding.images_to_decode(study, pending.stores)
    return {
        "stores": sum(images * work.image_bytes(store) for store, images in stores.items()),
        "encoders": results["pretrain"] + results["intermediate"],
        "cells": results["finetune"] + results["geometry"],
        "state of running jobs": min(at_once, len(pending.jobs)) * work.state_bytes(study),
        "free": shutil.disk_usage(_existing(study.folder)).free,
    }


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)
