# What the rules have in common: the study, how commands are started, resources.
import functools
import gc
import math
import re
import shlex
import sys
from pathlib import Path

# A plan is millions of objects that stay to the end: looking for garbage among them costs a sixth of the time.
gc.set_threshold(200_000, 100, 100)

sys.path.insert(0, f"{workflow.basedir}/src")

from viny import settings
from viny.config import read
from viny.errors import VinyError
from viny.grid import Cell
from viny.provenance import code_fingerprint
from viny.study import Study

try:
    for path in workflow.configfiles:
        read(Path(path))  # Snakemake takes the last of two equal keys without a word
    STUDY = Study.from_config(config)
except VinyError as error:
    sys.exit(f"The config cannot be used:\n  {error}")

MEMBERS = {member.prefix: member for member in STUDY.family}

# What is asked for. The metrics of a cell stand for the cell: its weights may be deleted to save space.
TARGETS = [job.metrics for member in STUDY.family for job in member.own_jobs("finetune", "geometry")]

# Commands find viny in this checkout wherever Snakemake works (--directory), and run in the Python of Snakemake,
# activated or not, unless the rules have a conda environment of their own.
OWN_PYTHON = f"PATH='{Path(sys.executable).parent}':$PATH "
shell.prefix(
    f"export {'' if workflow.deployment_settings.deployment_method else OWN_PYTHON}PYTHONPATH='{workflow.basedir}/src'; "
)

# On this machine jobs are forked from one process that has loaded torch; those that a cluster starts stand alone.
STAGES = "python -m viny.stages." if workflow.remote_exec else "python -m viny.stages.warm "

THREADS = STUDY.config["compute"]["threads"]
GPU = int(STUDY.config["compute"]["device"] == "cuda")
# Images a second that a training job surely reaches, to ask a cluster for enough time.
RATE = 1000 if GPU else 25 * THREADS


wildcard_constraints:
    # Where the results of a variant begin, nothing for the study itself. (Snakemake takes an empty pattern for none.)
    variant=f"({'|'.join(map(re.escape, MEMBERS))})",
    pretrain=r"\d+",
    intermediate=r"[a-z]+(_[a-z]+)*",
    downstream=r"\d+",
    seed=r"\d+|shared",
    origin=r"imagenet|intel|pets",
    recipe=r"[0-9a-f]{8}",
    generated=r"(procedural-[0-9a-f]{8}-)?",
    dataset=r"imagenet|intel-train|intel-test|pets",
    pixels=r"\d+",
    order=r"\d+",
    part=r"first=\d+|all",


def results(stage, filename):
    """Pattern of a stage's result, with wildcards for the run's coordinates."""
    return f"{STUDY.folder}/{{variant}}{stage}/{place(stage)}/{filename}"


def place(stage):
    """Pattern of the part of a path that names the run of a stage."""
    return STUDY.place(stage, **{axis: f"{{{axis}}}" for axis in Cell._fields})


def log_file(stage):
    """Pattern of a stage's log."""
    return f"{STUDY.logs}/{{variant}}{stage}/{place(stage)}.log"


def study_of(wildcards):
    """The study, or the variant of it, that a run belongs to."""
    return MEMBERS[wildcards.variant]


def seed_of(wildcards):
    """The seed that a run is trained with; a shared encoder has seed 0."""
    return 0 if wildcards.seed == "shared" else int(wildcards.seed)


def encoder_of(wildcards):
    """The encoder file that a segmentation or a measurement starts from, in a list; empty for random weights."""
    encoder = study_of(wildcards).encoder(wildcards.pretrain, wildcards.intermediate, wildcards.seed)
    return [encoder] if encoder else []


def pretrained_of(wildcards):
    """The encoder file that an intermediate task starts from, in a list; empty for random weights."""
    encoder = study_of(wildcards).encoder(wildcards.pretrain, "none", wildcards.seed)
    return [encoder] if encoder else []


def test_store_of(wildcards):
    """The test images of an intermediate task, in a list; empty where they are part of its store."""
    store = study_of(wildcards).task_stores(wildcards.intermediate).get("test")
    return [STUDY.manifest(store)] if store else []


# Snakemake runs a job again if its `params` have changed, but leaves out those whose function takes `input`, `output`
# or `threads`. The next two are of this kind: how to compute, or where the images lie, changes no result, and
# inputs are watched as such.


def start(wildcards, input, output, threads):
    """The command of a stage with the flags that say from which files, how and under which name to run it."""
    study, folder = study_of(wildcards), Path(output[0]).parent
    stage, *place = folder.relative_to(study.folder).parts
    place = [f"study={study.name}", *([f"variant={study.variant}"] if study.variant else []), *place]
    files = " ".join(f"--{name.replace('_', '-')} {file}" for name, file in input.items() if file)
    return (
        f"{STAGES}{stage} {files} {compute_flags(threads)} --coordinates {','.join(place)}"
        f" --state-dir {study.state} --output {folder}"
    )


@functools.cache
def compute_flags(threads):
    """Flags of the section `compute`."""
    return settings.to_flags({**STUDY.config["compute"], "threads": threads}, "compute")


def images_at(wildcards, output):
    """Flags of `viny.data.ingest` that say where images are and what to do about bad ones."""
    data = STUDY.config["data"]
    download = " --download" if data["download"] and wildcards.dataset == "pets" else ""
    return f"--source {shlex.quote(str(STUDY.source(wildcards.dataset)))}{download} --bad-images {data['bad_images']}"


def minutes(study, section, images, attempt):
    """Time to ask for, in minutes: that of training, ten for the rest, all of it more at each attempt."""
    values = study.section(section)
    passes = values["steps"] * values["batch_size"] if values["steps"] else values["epochs"] * images
    return at_most(attempt * (10 + math.ceil(passes / RATE / 60)))


def at_most(wanted):
    """Minutes to ask for where a cluster's profile limits them (`resources: time_limit`): runs carry on in a new job."""
    limit = workflow.resource_settings.resources.get("time_limit")
    return min(wanted, getattr(limit, "value", limit) or wanted)
