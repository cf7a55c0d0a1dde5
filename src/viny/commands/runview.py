"""What `snakemake` shows of a run: what is done, running and failed, and the time that is left.

It takes the place of Snakemake's own messages on the terminal alone: its log file has all of them. In a terminal, what
is running is drawn below the lines that stay; elsewhere a line now and then tells it.
"""

import logging
import re
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from viny.commands import estimates, terminal
from viny.commands.estimates import Finished, Rate, pace
from viny.commands.joblog import JobLog
from viny.commands.status import live_runs
from viny.commands.statusview import progress_words
from viny.commands.terminal import indented, plural, span
from viny.errors import VinyError
from viny.grid import Job, Study
from viny.result import read_result

# Messages of Snakemake and its plugins that say nothing about this study.
_CHATTER = re.compile(
    r"RuleException:\nCalledProcessError|WorkflowError:\nAt least one job did not complete|Terminating processes|"
    "Assuming unrestricted|Building DAG|Using shell|Conda environments|Singularity|Group jobs: inactive|Select jobs|"
    "Removing output files of failed|Exiting because a job|SLURM run ID|Job .* has been submitted|Submitted array job|"
    "Reasons:|Job rate limit"
)
# Of Snakemake's events about jobs; the others say nothing more.
_EVENTS = ("run_info", "job_info", "job_finished", "job_error", "group_error")
_SILENT = ("all", "study")  # rules that take no time
_TAIL = 10  # lines of an error that are shown
_LISTED = 4  # running jobs that are named in a line
_PAUSE = 60.0  # seconds without a line, after which one says what is running
_SCORES = {"miou": "mIoU", "miou_per_image": "mIoU", "accuracy": "accuracy", "probe_accuracy": "probe accuracy"}


def attach(workflow: Any, study: Study, pending: Collection[Job]) -> "RunView | None":
    """Show this run of Snakemake in viny's words.

    Snakemake's own output stays where it is asked for (`--printshellcmds`, `--verbose`, `--debug-dag`, `--logger`,
    `--quiet`).
    """
    settings, logger = workflow.output_settings, logging.getLogger("snakemake.logging")
    theirs = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    if settings.printshellcmds or settings.verbose or settings.debug_dag or settings.quiet or not theirs:
        return None
    view = RunView(study, pending, theirs[0], settings.dryrun, workflow.local_exec)
    logger.removeHandler(theirs[0])
    logger.addHandler(view)
    handler: Any = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        view.interrupted = True
        handler(number, frame)

    if callable(handler):
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, interrupt)
    return view


@dataclass
class _Started:
    """A job of Snakemake that runs, or was submitted."""

    name: str
    log: Path
    since: float = field(default_factory=time.monotonic)


class RunView(logging.Handler):
    """Shows the events that Snakemake logs.

    Args:
        pending: the jobs that have to run. plain: Snakemake's handler, for what is not about a job.
        dryrun: whether nothing will be run. local: whether jobs run on this machine.

    Attributes:
        interrupted: the user has pressed Ctrl-C, so a job that ends without a word was stopped and did not fail.
    """

    interrupted = False

    def __init__(self, study: Study, pending: Collection[Job], plain: Any, dryrun: bool = False, local: bool = True):
        super().__init__()
        self._study, self._plain, self._dryrun, self._local = study, plain, dryrun, local
        self._out = terminal.console(plain.stream)
        self._drawing: Live | None = None
        self._over, self._mutex = threading.Event(), threading.RLock()
        self._started: dict[int, _Started] = {}  # by Snakemake's number of the job
        self._waiting = {job.name: job for job in pending}
        device = estimates.this_device(study.config.compute)[0] if local else None
        self._finished = Finished(pending, device, study.config.compute.threads)
        self._total = self._done = self._at_once = 0
        self._failed: set[str] = set()
        self._warned: set[str] = set()
        self._begun = self._said = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message or an event; if that is not possible, as Snakemake would."""
        event = getattr(record, "event", None)
        try:
            with self._mutex:
                if event in _EVENTS:
                    getattr(self, f"_{event}")(record)
                elif event in (None, "error") and not _CHATTER.match(str(record.msg)):
                    self._message(record)
        except Exception:
            self._plain.handle(record)

    def close(self) -> None:
        """End the drawing; what is shown from now on stands below it."""
        self._over.set()
        with self._mutex:
            if self._drawing:
                self._drawing.stop()
                self._drawing = None
        super().close()

    def _message(self, record: logging.LogRecord) -> None:
        """A message that is not about a job."""
        if str(record.msg).startswith("Trying to restart job"):
            self._say("it will be tried again", 2)
        elif self._drawing:
            self._say(self._plain.format(record))
        else:
            self._plain.handle(record)

    def _run_info(self, record: Any) -> None:
        """What there is to do. Snakemake says it twice in a dry run, before and after the list of jobs."""
        first, self._total = not self._total, record.stats["total"]
        if self._dryrun and not first:
            self._plain.handle(record)
            self._say("each job with its reason: --dry-run --printshellcmds; how long it takes: viny plan\n")
        elif first and not self._dryrun:
            counts = {rule: number for rule, number in record.stats.items() if rule not in (*_SILENT, "total")}
            self._total, runs = sum(counts.values()), len(self._study.jobs)
            kinds = ", ".join(f"{number:,} {rule}" for rule, number in counts.items())
            done = f", {runs - len(self._waiting):,} of {plural(runs, 'run')} done" if self._waiting else ""
            self._say(f"{self._study.name}: {plural(self._total, 'job')} to do ({kinds}){done}")
            self._waiting = {name: job for name, job in self._waiting.items() if job.stage in counts}
            threading.Thread(target=self._follow, daemon=True).start()

    def _job_info(self, record: Any) -> None:
        place = dict(record.wildcards or {})
        name = place.get("run") or (f"stores/{place['store']}" if "store" in place else record.rule_name)
        if not self._dryrun and record.rule_name not in _SILENT:
            self._started[record.jobid] = _Started(name, Path(next(iter(record.log), "")))
            if self._local:  # where jobs are submitted, those that work tell
                self._at_once = max(self._at_once, len(self._started))

    def _job_finished(self, record: Any) -> None:
        """A line for what has finished, and warnings that are new."""
        started = self._started.pop(record.job_id, None)
        if not started:
            return
        job, log = self._study.jobs.get(started.name), JobLog.read(started.log)
        self._waiting.pop(started.name, None)
        if job:
            self._finished.add(job.metrics)
        self._done += 1
        self._failed.discard(started.name)  # at an earlier attempt
        outcome = self._score(job) if job else log.last.removeprefix(f"{started.name}: ")
        left = "" if self._drawing else self._left()
        said = [outcome, f"took {span(time.monotonic() - started.since)}", left]
        self._say(f"{self._count()} {started.name}: {', '.join(filter(None, said))}")
        for warning in log.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._say(f"warning: {warning} ({started.log})", 2, "yellow")

    def _job_error(self, record: Any) -> None:
        """A job that failed, the end of its log, and where that is."""
        started = self._started.pop(record.jobid, None) or _Started(record.rule_name, Path(next(iter(record.log), "")))
        log = JobLog.read(started.log)
        if not log.error and (log.last or self.interrupted):
            if not record.indent:  # of a submission all jobs are said to have failed
                last = log.last.removeprefix(f"{started.name}: ") or "it had just been started"
                self._say(f"stopped: {started.name}: {last}", style="yellow")
            return
        self._failed.add(started.name)
        self._say(f"failed: {started.name}", style="bold red")
        said = log.error[-_TAIL:] or ["it left no message: it was killed, or could not be started"]
        for line in (*said, f"log: {', '.join(map(str, record.log))}"):
            self._say(line.removeprefix(f"{started.name}: "), 2)

    def _group_error(self, record: Any) -> None:
        logs = f"; log: {', '.join(map(str, record.aux_logs))}" if record.aux_logs else ""
        self._say(f"failed: a submission of {plural(len(record.job_error_info), 'job')}{logs}", style="bold red")

    def _follow(self) -> None:
        """Show what is running until the end: in place, or as a line if nothing was said for a while."""
        with self._mutex:
            self._finished.add_all(self._study.folder.parent)
            if self._out.is_terminal and not self._out.is_dumb_terminal:
                self._drawing = Live(
                    console=self._out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
                )
                self._drawing.start()
        while not self._over.wait(1.0):
            with self._mutex, suppress(Exception):  # a run matters more than what can be drawn of it
                now = time.monotonic()
                if self._drawing:
                    self._drawing.update(self._picture(), refresh=True)
                elif now - self._said > max(_PAUSE, (now - self._begun) / 50):
                    running = [f"{name}: {words}" for name, words in self._running()]
                    self._say("; ".join(filter(None, [f"{self._count()} running", *running[:_LISTED], self._left()])))

    def _picture(self) -> Group:
        """Counts, the time left, and what is running, as far as there is room."""
        running, room = list(self._running()), max(1, self._out.height // 2 - 2)
        shown = [indented(f"{name}: {words}") for name, words in running[:room]]
        more = [indented(f"and {len(running) - room:,} more", "dim")] if len(running) > room else []
        failed = f", {len(self._failed):,} failed" if self._failed else ""
        left = f", {left}" if (left := self._left()) else ""
        heading = f"{self._study.name}: {self._done:,} of {plural(self._total, 'job')} done{failed}{left}"
        return Group(Text(heading, "bold"), *shown, *more)

    def _running(self) -> Iterator[tuple[str, str]]:
        """What runs and how far it is; on a cluster, last, how many jobs wait there."""
        runs, waiting = live_runs(self._study.folder), 0
        for started in self._started.values():
            run = runs.get(started.name)
            if run and run.live:
                yield started.name, progress_words(run.progress, "running")
            elif self._local:
                said = "" if started.name in self._study.jobs else JobLog.read(started.log).last
                yield started.name, said.removeprefix(f"{started.name}: ") or "starting"
            else:
                waiting += 1
        if waiting:
            yield "submitted", f"{plural(waiting, 'job')} more"

    def _left(self) -> str:
        """The time until all runs are done, by finished runs and by what those say that are at work."""
        jobs = [job for job in self._waiting.values() if not self._blocked(job)]
        alive = {name: run for name, run in live_runs(self._study.folder).items() if run.live}
        self._at_once = max(self._at_once, len(alive), 1)
        rates, told = self._finished.rates(), {}
        for name, run in alive.items():
            if job := self._waiting.get(name):
                speed, left = run.progress.get("images_per_second"), run.progress.get("seconds_left")
                if speed:
                    rates.setdefault(pace(job), Rate(0.0, 1 / speed, 0.0, "running"))
                if left is not None:
                    told[job] = left
        seconds = estimates.seconds_of(jobs, rates) | told
        if not seconds:
            return ""
        word = "about" if len(seconds) >= len(jobs) else "more than"
        return f"{word} {span(estimates.elapsed(seconds, self._at_once))} left"

    def _blocked(self, job: Job | None) -> bool:
        """Whether a job, or something that it needs, has failed."""
        if job is None:
            return False
        return bool(self._failed & {job.name, f"stores/{job.store.place}"}) or self._blocked(job.upstream)

    def _score(self, job: Job) -> str:
        """The score of a finished run, or its loss."""
        try:
            result = read_result(job)
        except VinyError as error:
            return str(error)
        scores = result.metrics.model_dump() if result else {}
        scores.pop("miou" if self._study.config.analysis.miou == "per_image" else "miou_per_image", None)
        found = next((f"{word} {scores[key]:.1%}" for key, word in _SCORES.items() if scores.get(key) is not None), "")
        return found or (f"loss {scores['loss']:.4g}" if "loss" in scores else "")

    def _count(self) -> str:
        return f"[{self._done:>{len(str(self._total))}}/{self._total}]"

    def _say(self, text: str, indent: int = 0, style: str = "") -> None:
        """Something that stays."""
        self._said = time.monotonic()
        if self._out.is_terminal:
            self._out.print(indented(text, style, indent))
        else:
            self._out.print(" " * indent + text, soft_wrap=True)
