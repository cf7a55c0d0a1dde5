# What the rules have in common: the study, what is to be done, how commands are started, resources.
import gc
import math
import os
import re
import shlex
import sys
from pathlib import Path

# A plan is millions of objects that stay to the end: looking for garbage among them costs a sixth of the time.
gc.set_threshold(200_000, 100, 100)

SOURCE = os.path.normpath(f"{workflow.current_basedir}/../../src")
sys.path.insert(0, SOURCE)
if set("{}") & set(SOURCE):
    sys.exit(f"{SOURCE}: Snakemake takes braces in the path of a workflow for wildcards; move the checkout elsewhere")

from snakemake.settings.types import RerunTrigger

from viny import logs
from viny.advice import advice
from viny.commands.runview import attach
from viny.config import load, yamlfile
from viny.drivers import register
from viny.errors import VinyError
from viny.files import date_back
from viny.grid import CHECKPOINTS, Study
from viny.preload import DRIVER, driver_id
from viny.survey import analysis_is_current, survey
from viny.training.state import prune_states

try:
    for path in workflow.configfiles:
        yamlfile.read(Path(path))  # Snakemake silently takes the last of two equal keys
    STUDY = Study(load(config))
    STORES = {store.place: store for store in STUDY.stores}
    # A job on a cluster is told what to do; only the main process looks at what has been done.
    SURVEY = survey(STUDY) if workflow.is_main_process else None
    if SURVEY is not None:
        made = [path for job in STUDY.jobs.values() for path in (job.metrics, job.checkpoint)]
        date_back([STUDY.folder / "study.json", *made, *(store.manifest for store in STUDY.stores)])
        logs.setup()
        register()
        if not SURVEY.pending:  # what a Snakemake leaves that is stopped after its last job
            prune_states(STUDY.folder / ".state")
except VinyError as error:
    sys.exit(f"The study cannot be run:\n  {error}")

# A workflow that this one is a module of keeps the output that it has.
SHOWN = SURVEY is not None and os.path.normpath(f"{workflow.basedir}/src") == SOURCE
VIEW = attach(workflow, STUDY, SURVEY.pending) if SHOWN else None

FOLDER = STUDY.folder
# The study as it is run: what every command is given.
STUDY_FILE = f"{FOLDER}/study.json"
STUDY_TEXT = STUDY.config.model_dump_json(indent=1)

# Commands find viny in this checkout wherever Snakemake works (--directory, module), and run in the Python of Snakemake,
# activated or not, unless the rules have a conda environment of their own.
PYTHON = "python" if workflow.deployment_settings.deployment_method else sys.executable
VINY = f"{shlex.quote(PYTHON)} -m viny"
PREFIX = f"export PYTHONPATH={shlex.quote(SOURCE)}${{PYTHONPATH:+:$PYTHONPATH}}; "
if not workflow.remote_exec:  # jobs of this run are forked from one process that has loaded torch
    PREFIX += f"export {DRIVER}={shlex.quote(driver_id())}; "
shell.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))

THREADS = STUDY.config.compute.threads
GPU = int(STUDY.config.compute.device == "cuda")
# Images a second that a training job surely reaches, to ask a cluster for enough time.
RATE = 1000 if GPU else 25 * THREADS


wildcard_constraints:
    store="|".join(map(re.escape, STORES)),


def results(stage):
    """Patterns of what Snakemake knows of a stage's results."""
    folder = f"{FOLDER}/{{run,(variants/[^/]+/)?{stage}/.+}}"
    return [f"{folder}/metrics.json", f"{folder}/{CHECKPOINTS[stage]}"]


def decide(*outdated):
    """Let what metrics.json records decide what is run again.

    Snakemake would go by dates, by its own memory of earlier runs, and by inputs that were made anew. None of these says
    that a result has changed, so they are not asked: a job that is up to date has no inputs, and one that is not is
    forced.
    """
    workflow.dag_settings.rerun_triggers = frozenset({RerunTrigger.MTIME})
    workflow.dag.forcefiles.update(map(str, outdated))


def is_forced(rule):
    """Whether the user asks for all jobs of a rule, done or not."""
    return workflow.dag_settings.forceall or rule in workflow.dag_settings.forcerun


def inputs(wildcards, rule):
    """What a job needs that has no result yet: its images, its encoder, the study file."""
    job = STUDY.jobs[wildcards.run]
    if workflow.remote_exec:  # the jobs of a submission run whatever becomes of the others
        workflow.execution_settings.keep_going = True
    if SURVEY is not None and not is_forced(rule):
        if SURVEY.ready(job):
            decide()
            return []
        decide(*([job.metrics, job.checkpoint] if job in SURVEY.outdated else []))
    encoder = [job.upstream.checkpoint] if job.upstream else []
    tested = [store.manifest for store in job.store.tested] if job.store.leaks == "stop" else []
    return [study_file(), job.store.manifest, *tested, *encoder]


def images_wanted(wildcards):
    """What decoding needs: the study file, unless the store is there, which a new study file does not change."""
    store = STORES[wildcards.store]
    if store.manifest.exists() and not is_forced("decode"):
        return []
    tested = [other.manifest for other in store.tested] if store.leaks == "drop" else []
    return [study_file(), *tested]


def study_file():
    """The study file, written again if it is that of an earlier run."""
    path = Path(STUDY_FILE)
    if SURVEY is not None and path.exists() and path.read_text() != f"{STUDY_TEXT}\n":
        decide(path)
    return STUDY_FILE


def targets(wildcards):
    """The metrics of all cells and measurements, and of the encoders that are there or needed for them.

    An encoder may be deleted to save space once nothing has to start from it.
    """
    cells = ("finetune", "geometry")
    if SURVEY is None:  # on a cluster, where everything that is needed has been made
        return [job.metrics for job in STUDY.jobs.values() if job.stage in cells or job.metrics.exists()]
    decide()
    needed = set(SURVEY.pending)
    return [job.metrics for job in STUDY.jobs.values() if job.stage in cells or job in needed or SURVEY.ready(job)]


def analyzed(wildcards):
    """All results, and the study file; an analysis by other code or for another study file is made again."""
    made = Path(f"{FOLDER}/cells.csv")
    if SURVEY is not None and made.exists() and not analysis_is_current(STUDY):
        decide(made)
    return [study_file(), *targets(wildcards)]


def minutes(wildcards, attempt):
    """Time to ask for, in minutes: that of training, ten for the rest, all of it more at each attempt."""
    job = STUDY.jobs[wildcards.run]
    # No data set of an intermediate task of the paper is larger than 15,000 images.
    images = job.images or 15000
    return at_most(attempt * (10 + math.ceil(job.settings.samples_seen(images) / RATE / 60)))


def at_most(wanted):
    """Minutes to ask for where a cluster's profile limits them (`resources: time_limit`): runs carry on in a new job."""
    limit = workflow.resource_settings.resources.get("time_limit")
    return min(wanted, getattr(limit, "value", limit) or wanted)
