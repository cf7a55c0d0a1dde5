"""What `snakemake` shows of a run, from the events that Snakemake logs."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from fabricate import DEVICE, fill, jobs, make_study, write_log, write_result, write_store
from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from test_status import begin

from viny.commands import estimates
from viny.commands.runview import RunView, attach
from viny.logs import duration

QUIET = {"printshellcmds": False, "verbose": False, "debug_dag": False, "quiet": None, "dryrun": False}


class Run:
    """A run as Snakemake tells it, and what is shown of it where there is no terminal."""

    def __init__(self, study, **options):
        self.stream = io.StringIO()
        plain = ColorizingTextHandler(stream=self.stream, formatter=DefaultFormatter())
        self.view = RunView(study, list(study.jobs.values()), plain, **options)
        self.numbers: dict[str, int] = {}

    def tell(self, event=None, message="", level=logging.INFO, **details):
        record = logging.LogRecord("snakemake", level, "", 0, message, (), None)
        record.__dict__ |= {"event": event, **details}
        self.view.handle(record)

    def stats(self, **counts):
        self.tell("run_info", "Job stats: all of them", stats={"all": 1, **counts, "total": sum(counts.values()) + 1})

    def start(self, job):
        number = self.numbers.setdefault(job.name, len(self.numbers))
        inputs = [f"input {n}" for n in range(100)]
        place = {"rule_name": job.stage, "wildcards": {"run": job.name}, "log": [str(job.log)]}
        self.tell("job_info", jobid=number, input=inputs, **place)

    def finish(self, job):
        self.tell("job_finished", job_id=self.numbers[job.name])

    def fail(self, job, **details):
        self.tell("job_error", jobid=self.numbers[job.name], log=[str(job.log)], rule_name=job.stage,
                  **{"indent": False, "input": ["all inputs"], "shellcmd": "viny run", **details})  # fmt: skip

    @property
    def shown(self):
        self.view.close()
        return self.stream.getvalue().splitlines()


@pytest.fixture
def run(study):
    """A run of the toy study, begun."""
    run = Run(study)
    run.stats(pretrain=2, intermediate=4, finetune=16)
    return run


def test_it_begins_with_what_there_is_to_do(run):
    assert run.shown == ["toy: 22 jobs to do (2 pretrain, 4 intermediate, 16 finetune), 0 of 22 runs done"]


def test_a_finished_job_is_one_line_with_its_score(study, run):
    fill(study)
    for stage in ("pretrain", "intermediate", "finetune"):
        job = jobs(study, stage)[0]
        run.start(job)
        run.finish(job)
    pretrain, intermediate, finetune = run.shown[1:]
    assert pretrain == f"[ 1/22] {jobs(study, 'pretrain')[0].name}: loss 0.5, took 0:00:00"
    assert ": accuracy 50.0%, took" in intermediate
    assert ": mIoU 52.4%, took" in finetune


def test_of_a_study_that_counts_images_alike_the_mean_over_images_is_shown(config):
    study = make_study(config | {"analysis": {"miou": "per_image"}})
    fill(study)
    run, job = Run(study), jobs(study, "finetune")[0]
    run.start(job)
    run.finish(job)
    assert "mIoU 40.0%" in run.shown[0]


def test_what_is_not_a_run_is_shown_with_its_last_message(run):
    run.tell("job_info", jobid=7, rule_name="analyze", wildcards=None, log=["logs/toy/analyze.log"])
    write_log(Path("logs/toy/analyze.log"), "INFO reading", "INFO 3 of 3 runs of toy have results; see results/toy")
    run.tell("job_finished", job_id=7)
    assert run.shown[1] == "[ 1/22] analyze: 3 of 3 runs of toy have results; see results/toy, took 0:00:00"


def test_a_failed_job_is_shown_once_with_its_error_and_log(study, run):
    job = jobs(study, "finetune")[0]
    run.start(job)
    write_log(job.log, "INFO begun", f"ERROR {job.name}: the loss is nan in epoch 3;", "  lower learning_rate")
    run.fail(job)
    run.tell("error", "RuleException:\nCalledProcessError in file ...", logging.ERROR)
    assert run.shown[1:] == [
        f"failed: {job.name}",
        "  the loss is nan in epoch 3;",
        "    lower learning_rate",
        f"  log: {job.log}",
    ]


def test_of_a_long_traceback_the_end_is_shown(study, run):
    job = jobs(study, "finetune")[0]
    run.start(job)
    frames = [f'  File "x.py", line {n}' for n in range(100)]
    write_log(job.log, "ERROR unexpected error", "Traceback (most recent call last):", *frames, "RuntimeError: boom")
    run.fail(job)
    assert len(run.shown) < 15
    assert run.shown[-2] == "  RuntimeError: boom"


def test_a_job_that_was_killed_is_told_from_one_that_saved_its_state(study, run):
    killed, stopped = jobs(study, "finetune")[:2]
    for job in (killed, stopped):
        run.start(job)
    write_log(stopped.log, f"INFO {stopped.name}: SIGINT; the state is saved, the same command carries on")
    run.fail(stopped)
    run.fail(killed)
    assert run.shown[1:] == [
        f"stopped: {stopped.name}: SIGINT; the state is saved, the same command carries on",
        f"failed: {killed.name}",
        "  it left no message: it was killed, or could not be started",
        f"  log: {killed.log}",
    ]


def test_a_job_that_ctrl_c_ends_before_its_first_word_has_not_failed(study, run):
    job = jobs(study, "finetune")[0]
    run.start(job)
    run.view.interrupted = True
    run.fail(job)
    assert run.shown[1:] == [f"stopped: {job.name}: it had just been started"]


def test_of_a_submission_only_the_jobs_that_failed_are_shown(study, run):
    good, bad = jobs(study, "finetune")[:2]
    for job in (good, bad):
        run.start(job)
    write_log(good.log, "INFO done")
    write_log(bad.log, "ERROR out of disk")
    run.tell("group_error", job_error_info=[{}, {}], aux_logs=["slurm/7.log"])
    run.fail(good, indent=True)
    run.fail(bad, indent=True)
    run.tell(None, "Trying to restart job 3.")
    assert run.shown[1:] == [
        "failed: a submission of 2 jobs; log: slurm/7.log",
        f"failed: {bad.name}",
        "  out of disk",
        f"  log: {bad.log}",
        "  it will be tried again",
    ]


def test_the_time_left_is_of_the_whole_study(study):
    """By finished runs, which take 2.5 s and 10 ms for each image that they show, and by what running ones say."""
    for store in study.stores:
        write_store(store)
    run, (first, second, *others), encoders = Run(study, local=False), jobs(study, "finetune"), jobs(study, "pretrain")
    run.start(first)
    write_result(first)
    run.finish(first)
    seconds = {job: 2.5 + job.settings.samples_seen(job.images) / 100 for job in (second, *others)}
    begin(encoders[0], seconds_left=100.0)
    run.start(second)
    write_result(second)
    run.finish(second)
    # The other encoder goes at the 50 images per second of the one that is running.
    later = sum(map(seconds.get, others)) + 100 + encoders[1].settings.samples_seen(encoders[1].images) / 50
    before, after = run.shown
    assert before.endswith(f"more than {duration(sum(seconds.values()))} left")
    assert after.endswith(f"more than {duration(later)} left")


def test_the_time_left_is_that_of_as_many_jobs_at_once_as_have_run(study, monkeypatch):
    monkeypatch.setattr(estimates, "this_device", lambda compute: (DEVICE, 2))
    for store in study.stores:
        write_store(store)
    run, (first, second, *others) = Run(study), jobs(study, "finetune")
    run.start(first)
    run.start(second)
    write_result(first)
    run.finish(first)
    seconds = sum(2.5 + job.settings.samples_seen(job.images) / 100 for job in (second, *others))
    assert run.shown[0].endswith(f"more than {duration(seconds / 2)} left")


def test_runs_that_snakemake_is_not_asked_for_take_no_time(study):
    for store in study.stores:
        write_store(store)
    job = jobs(study, "pretrain")[0]
    begin(job, seconds_left=100.0)
    run = Run(study, local=False)
    run.stats(partial=1)
    run.tell("job_info", jobid=7, rule_name="partial", wildcards=None, log=["logs/toy/partial.log"])
    run.tell("job_finished", job_id=7)
    assert run.shown[-1] == "[1/1] partial: took 0:00:00"


def test_a_job_that_succeeds_at_a_second_attempt_has_not_failed(study, run):
    fill(study)
    job = jobs(study, "finetune")[0]
    run.start(job)
    run.fail(job)
    run.start(job)
    run.finish(job)
    assert "1 failed" not in str(run.view._picture().renderables[0])


def test_a_warning_in_a_log_is_shown_once(study, run):
    fill(study)
    for job in jobs(study, "finetune")[:2]:
        run.start(job)
        write_log(job.log, "WARNING no locks in results", "INFO done")
        run.finish(job)
    assert sum("warning: no locks in results" in line for line in run.shown) == 1


def test_messages_of_snakemake_stay_and_its_chatter_does_not(run):
    run.tell(None, "Select jobs to execute...")
    run.tell(None, "Nothing to be done (all requested files are present and up to date).")
    run.tell("error", "WorkflowError:\nno space left", logging.ERROR)
    assert run.shown[1:] == [
        "Nothing to be done (all requested files are present and up to date).",
        "WorkflowError:",
        "no space left",
    ]


def test_a_dry_run_counts_jobs_and_lists_none(study):
    run = Run(study, dryrun=True)
    run.stats(finetune=16)
    run.start(jobs(study, "finetune")[0])
    run.stats(finetune=16)
    shown = "\n".join(run.shown)
    assert shown.count("Job stats") == 1
    assert "input" not in shown


@pytest.mark.parametrize("flag", ["printshellcmds", "verbose", "debug_dag", "quiet"])
def test_snakemakes_own_output_is_kept_where_it_is_asked_for(study, flag):
    logger, theirs = logging.getLogger("snakemake.logging"), ColorizingTextHandler(stream=io.StringIO())
    theirs.name = "DefaultStreamHandler"
    logger.addHandler(theirs)
    workflow = SimpleNamespace(output_settings=SimpleNamespace(**QUIET | {flag: True}), local_exec=True)
    try:
        assert attach(workflow, study, []) is None
        workflow.output_settings = SimpleNamespace(**QUIET)
        view = attach(workflow, study, [])
        assert view in logger.handlers
        assert theirs not in logger.handlers
        logger.removeHandler(view)
    finally:
        logger.removeHandler(theirs)
