"""`viny status`: every job of a study as done, running, interrupted, failed or waiting.

A job is done when its metrics.json is there. It is running when its state is locked or, on file systems whose locks
other machines may not see, when its progress is fresh; interrupted when it has begun and nobody works on it; failed
when its log ends in an error; else it waits. Everything is read, nothing is written or locked.
"""

import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from viny.grid import Job, Store
from viny.operations import progress
from viny.operations.progress import Run
from viny.study import Study

STATES = ("done", "running", "interrupted", "failed", "waiting")
_TAIL = 20_000  # bytes of a log that are looked at


@dataclass(frozen=True)
class JobStatus:
    """A job, or the decoding of a store, and how far it is.

    Attributes:
        name: for people, `finetune pretrain=0 intermediate=none downstream=32 seed=1`.
        state: one of STATES.
        variant: the variant of the study that it belongs to, empty for the study itself.
        progress: epoch, epochs, images, image_passes, images_per_second, seconds_left (as far as known).
        message: why it failed, or the last line of the log of a job without known progress.
    """

    name: str
    state: str
    job: Job | Store
    log: Path
    progress: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    variant: str = ""

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "name": self.name,
            "state": self.state,
            "stage": self.job.stage if isinstance(self.job, Job) else "images",
            "variant": self.variant,
            "coordinates": self.job.coordinates if isinstance(self.job, Job) else {},
            "log": str(self.log),
            "progress": self.progress,
            "message": self.message,
        }


def gather(study: Study) -> list[JobStatus]:
    """The stores and all jobs of a study and its variants, in the order in which they are needed."""
    found = [_store_status(study, store) for store in study.stores()]
    for member in study.family:
        runs = progress.runs(member)
        found += [_job_status(member, job, runs.get(progress.key(job))) for job in member.own_jobs()]
    return found


def show(study: Study, every: float | None = None, as_json: bool = False) -> int:
    """Print the status once, or again every `every` seconds until all is done."""
    from viny.operations.statusview import render

    while True:
        found = gather(study)
        counts = Counter(status.state for status in found)
        if as_json:
            jobs = [status.as_json() for status in found]
            print(json.dumps({"study": study.name, "folder": str(study.folder), "counts": counts, "jobs": jobs}))
        else:
            text = "\n".join(render(study, found))
            # Home, the lines with what was right of them erased, then everything below.
            redraw = every and sys.stdout.isatty()
            print("\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[J" if redraw else text, flush=True)
        if not every or counts["done"] == len(found):
            return 0
        try:
            time.sleep(every)
        except KeyboardInterrupt:
            return 0


def job_log(study: Study, job: Job) -> Path:
    """The log of a job, where the rules put it."""
    place = job.folder.relative_to(study.folder)
    return study.logs / place.with_name(f"{place.name}.log")


def store_log(study: Study, store: Store) -> Path:
    """The log of the decoding of a store."""
    return study.logs / "ingest" / study.manifest(store).relative_to(study.config["stores"]).with_suffix(".log")


def _job_status(study: Study, job: Job, run: Run | None) -> JobStatus:
    place = ({"variant": study.variant} if study.variant else {}) | job.coordinates
    name = " ".join([job.stage, *(f"{axis}={value}" for axis, value in place.items())])
    log = job_log(study, job)
    if run and run.live:
        shown = dict(run.progress)
        if "seconds_left" in shown:
            shown["seconds_left"] = max(0.0, shown["seconds_left"] - run.age)
        shown["seconds_since"] = run.age if math.isfinite(run.age) else None
        return JobStatus(name, "running", job, log, shown, variant=study.variant)
    if job.metrics.exists():
        return JobStatus(name, "done", job, log, variant=study.variant)
    state, message = _from_log(log)
    if state != "failed" and run and run.finished:
        state, message = "interrupted", "finished, but its results are not in place; the next run puts them back"
    elif state == "waiting" and run and run.begun:
        state = "interrupted"
    return JobStatus(name, state, job, log, dict(run.progress) if run else {}, message, study.variant)


def _store_status(study: Study, store: Store) -> JobStatus:
    name, log = f"images of {store.dataset}, {store.pixels} px, {store.part}", store_log(study, store)
    if study.manifest(store).exists():
        return JobStatus(name, "done", store, log)
    state, message = _from_log(log)
    return JobStatus(name, state, store, log, message=message)


def _from_log(log: Path) -> tuple[str, str]:
    """State and message of a job without result whose state nobody holds, from the end of its log.

    Every start of a job begins its log afresh, so an error in it is the end of the last attempt.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "waiting", ""
    lines = [line.rstrip() for line in lines if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith("viny: error:"):
            return "failed", line
        if line.startswith("Traceback (most recent call last)"):
            last = [text for text in lines[number + 1 :] if not text.startswith(" ")]
            return "failed", last[0] if last else line
    last = lines[-1] if lines else "no message"
    return ("running" if progress.fresh(log) and "state is saved" not in last else "interrupted"), last
