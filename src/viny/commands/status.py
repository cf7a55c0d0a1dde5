"""`viny status`: every job of a study as done, running, interrupted, failed, outdated or waiting.

A job is running if the process that published its progress lives or, on another machine, published it a short while
ago. Otherwise what `viny.survey` says of its result decides, then the end of its log, then whether a state was saved.
Everything is read, nothing is written or locked.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from viny.commands import estimates, terminal
from viny.commands.joblog import JobLog
from viny.commands.parser import CODES, Parser, positive
from viny.commands.study import study_of
from viny.commands.terminal import plural
from viny.drivers import abandoned
from viny.errors import command, shortened
from viny.grid import STAGES, Job, StoreSpec, Study
from viny.logs import log, setup
from viny.processes import Writer
from viny.survey import MISSING, analysis_is_current, survey

FRESH = 120.0  # seconds; on another host, what was written more recently counts as alive
FAILED, UNFINISHED = 1, 3  # exit codes


@dataclass(frozen=True)
class Status:
    """How far a job, the decoding of a store (stage `images`) or the analysis is.

    Attributes:
        state: done, running, interrupted, failed, outdated or waiting.
        message: why it failed, what has changed, or the last line of the log of a store that is decoded.
        progress: epoch, epochs, samples, samples_seen, images_per_second, seconds_left, as far as known.
    """

    name: str
    stage: str
    state: str
    log: str
    message: str = ""
    variant: str = ""
    coordinates: Mapping[str, int | str] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Overview:
    """The state of everything in a study, from a single look at the disk.

    Attributes:
        pending: the jobs that a run would do. abandoned: whether the Snakemake that did them is gone.
    """

    study: Study
    pending: Sequence[Job]
    statuses: Sequence[Status]
    abandoned: bool = False

    @cached_property
    def counts(self) -> Counter[str]:
        """Number of jobs of the grid by state."""
        return Counter(status.state for status in self.statuses if status.stage in STAGES)

    @property
    def exit_code(self) -> int:
        """0 if all is done, 1 if something failed, 3 if something is left to do."""
        states = {status.state for status in self.statuses}
        return FAILED if "failed" in states else 0 if states <= {"done"} else UNFINISHED

    @property
    def over(self) -> bool:
        """Whether nothing will change: all is done, or something failed or ended and nothing runs any more."""
        ended = self.exit_code == FAILED or self.abandoned
        return self.exit_code == 0 or (ended and not self.having("running"))

    def having(self, state: str) -> list[Status]:
        """Everything in a state."""
        return [status for status in self.statuses if status.state == state]

    @cached_property
    def seconds_left(self) -> float | None:
        """Time until all jobs are done, by finished runs on this device; None if they do not tell."""
        compute = self.study.config.compute
        running = [status for status in self.having("running") if status.stage in STAGES]
        jobs = {job.name: job for job in self.pending} | {each.name: self.study.jobs[each.name] for each in running}
        device, at_once = estimates.this_device(compute)
        rates = estimates.Finished(jobs.values(), device, compute.threads).add_all(self.study.folder.parent).rates()
        left = estimates.seconds_of(jobs.values(), rates)
        told = {jobs[each.name]: each.progress.get("seconds_left") for each in running}
        left |= {job: seconds for job, seconds in told.items() if seconds is not None}
        return estimates.elapsed(left, len(running) or at_once) if len(left) == len(jobs) else None


class Run(NamedTuple):
    """What the state folder of a run shows (see `viny.training.state`)."""

    live: bool  # a process works on it
    saved: bool  # a position to carry on from is there, or even the results are
    key: str  # of the job as it was then
    progress: dict[str, Any]  # what the process published last


def parser() -> Parser:
    """The command line."""
    text = "Say what is done, running, interrupted, failed, outdated or waiting; no job is disturbed."
    watch = "again every S seconds (5) until all is done, or something failed or Snakemake ended and nothing runs"
    made = Parser("status", text, "mine.yaml", "results/mine --watch", codes=CODES)
    made.add_study()
    made.add_argument("--watch", type=positive, nargs="?", const=5, metavar="S", help=watch)
    made.add_json()
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Print the status once, or again and again; returns 0 if all is done, 1 if something failed, else 3."""
    args = parser().parse_args(argv)
    setup()
    study = study_of(args)
    from viny.commands.statusview import screen

    with nullcontext(_print_json) if args.json else screen(args.watch is not None) as show:
        while True:
            found = look(study)
            show(found)
            if not args.watch or found.over:
                break
            try:
                time.sleep(args.watch)
            except KeyboardInterrupt:
                return found.exit_code
    if args.watch and found.exit_code == UNFINISHED:
        log.info("no Snakemake works on it any more; start it again to carry on")
    return found.exit_code


def say_end(study: Study) -> None:
    """Say how far a run came that ended early, and which jobs failed.

    Snakemake lists all jobs of a submission, whichever of them failed.
    """
    found = look(study)
    failed = [f"  {status.name} ({status.log})" for status in found.having("failed")]
    done = f"{found.counts['done']:,} of {plural(found.counts.total(), 'run')} done"
    if failed:
        what = f"{plural(len(failed), 'job')} failed, {done}; once that is fixed, the same command carries on:"
        log.error("%s\n%s", what, shortened(failed))
    else:
        log.info("stopped with %s; the same command carries on", done)


def look(study: Study) -> Overview:
    """The state of everything: stores, jobs in the order in which they are needed, analysis.

    What no run would make is left out: stores and encoders that were deleted after use, encoders of earlier settings.
    """
    found, runs = survey(study), live_runs(study.folder)
    pending = set(found.pending)
    needed = {job.store for job in pending}
    statuses = [_store(store) for store in study.stores if store in needed or store.manifest.exists()]
    for job in study.jobs.values():
        run, reason = runs.get(job.name), found.reasons[job]
        if job in pending or not reason or (run and run.live):
            statuses.append(_job(job, reason, job in pending, run))
    return Overview(study, found.pending, [*statuses, _analysis(study, bool(pending))], abandoned())


def _job(job: Job, reason: str, pending: bool, run: Run | None) -> Status:
    """The status of a job; `reason`: why it has no result that is up to date."""
    state, message = "waiting", "" if reason or not pending else "its weights are gone, and are needed again"
    if run and run.live:
        state, message = "running", ""
    elif not reason and not pending:
        state = "done"
    elif failure := JobLog.read(job.log).failure:
        state, message = "failed", failure
    elif run and run.key == job.key and run.saved:
        state, message = "interrupted", ""
    elif reason not in ("", MISSING):
        state, message = "outdated", reason
    progress = run.progress if run and state in ("running", "interrupted") else {}
    return Status(job.name, job.stage, state, str(job.log), message, job.variant, dict(job.coordinates), progress)


def _store(store: StoreSpec) -> Status:
    state, message = ("done", "") if store.manifest.exists() else _by_log(store.log)
    return Status(f"stores/{store.place}", "images", state, str(store.log), message)


def _analysis(study: Study, pending: bool) -> Status:
    log, state, message = Path("logs", study.name, "analyze.log"), "done", ""
    if pending:
        state = "waiting"
    elif not (study.folder / "overview.html").exists():
        state, message = _by_log(log)
    elif not analysis_is_current(study):
        state, message = "outdated", "it was made by other code or for another study file"
    return Status("analysis", "analysis", state, str(log), message)


def _by_log(path: Path) -> tuple[str, str]:
    """State and message of something unfinished that saves no position."""
    log = JobLog.read(path)
    return ("failed", log.failure) if log.failure else ("running", log.last) if log.age < FRESH else ("waiting", "")


def live_runs(folder: Path) -> dict[str, Run]:
    """The runs of a study that have a state, by the name of their job; of several of a job the living or latest one."""
    found = []
    for path in (folder / ".state").glob("*/run.json"):
        with suppress(OSError, ValueError, LookupError, TypeError):  # removed meanwhile, or damaged
            run, (live, progress) = json.loads(path.read_bytes()), _progress(path.with_name("progress.json"))
            saved = any(path.with_name(name).exists() for name in ("state.pt", "previous.pt", "done"))
            found.append((live, path.stat().st_mtime, run["job"], Run(live, saved, run["run"], progress)))
    return {name: state for _, _, name, state in sorted(found, key=lambda each: each[:2])}


def _progress(path: Path) -> tuple[bool, dict[str, Any]]:
    """Whether the process that works on a run lives, and what it published."""
    try:
        seen = json.loads(path.read_bytes(), parse_constant=lambda infinite: None)
        age = max(0.0, time.time() - seen["time"])
        lives, left = Writer(seen["host"], seen["pid"], seen["started"]).lives, seen.get("seconds_left")
        seen["seconds_left"] = None if left is None else max(0.0, left - age)
        return age < FRESH if lives is None else lives, seen
    except (OSError, LookupError, TypeError, ValueError):  # nothing published yet, or damaged
        return False, {}


def _print_json(found: Overview) -> None:
    document = {"study": found.study.name, "folder": str(found.study.folder), "counts": found.counts}
    jobs = [asdict(status) for status in found.statuses]
    terminal.print_json({**document, "seconds_left": found.seconds_left, "jobs": jobs})
