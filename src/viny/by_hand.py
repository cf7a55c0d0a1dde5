"""`viny run finetune --images 250 ...`: a job outside of the grid, with the settings of a study."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from viny.config import sections
from viny.config.sections import MOST, NONE, Config, Model
from viny.encoders import Encoder, load_encoder
from viny.errors import FinalError, did_you_mean
from viny.grid import Job, Study

GIVEN = "encoder"  # what the encoder of the command line is called on the pre-training axis
# What a stage must be told beside --seed and --output.
NEEDED = {"pretrain": "images", "intermediate": "task", "finetune": "images", "geometry": "encoder"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `job_by_hand` reads."""
    flags = parser.add_argument_group("a stage outside of the grid")
    flags.add_argument("--task", metavar="NAME", help="intermediate task, by its name in the study file")
    flags.add_argument("--images", type=count, metavar="N", help="number of training images")
    flags.add_argument("--seed", type=_seed, metavar="N", help="seed of everything random in this run")
    flags.add_argument("--encoder", type=Path, metavar="FILE", help="encoder to start from (default: random weights)")
    flags.add_argument("--output", type=Path, metavar="FOLDER", help="where the results go")


def job_by_hand(stage: str, args: argparse.Namespace, config: Config) -> Job:
    """The job of a stage that the flags describe.

    Raises:
        FinalError: a flag is missing or wrong, or the encoder has other sizes than the study file gives.
    """
    missing = [f"--{name}" for name in (NEEDED[stage], "seed", "output") if getattr(args, name) is None]
    if missing:
        raise FinalError(f"viny run {stage} needs {', '.join(missing)}")
    task = args.task if stage == "intermediate" else NONE
    if task != NONE and task not in config.intermediate:
        known = ", ".join(config.intermediate)
        raise FinalError(f"--task {task}: is none of {known}{did_you_mean(task, config.intermediate)}")
    start: int | str = args.images if stage == "pretrain" else 0
    changes: dict[str, Any] = {"variants": {}}
    if args.encoder:
        if stage == "pretrain":
            raise FinalError("viny run pretrain begins with random weights; leave out --encoder")
        start, changes["model"] = GIVEN, _model_of(args.encoder, config)
        file = sections.Encoder.model_validate({"file": str(args.encoder.resolve())})
        changes["encoders"] = {**config.encoders, GIVEN: file}
    wanted = {"pretrain": start, "intermediate": task, "downstream": args.images or 1, "seed": args.seed}
    # Added to the study's own axes, so that the run reads the study's stores.
    axes: dict[str, Any] = {"seeds": (*config.grid.seeds, args.seed), "exclude": (), "share_encoder": False}
    for axis in ("pretrain", "intermediate", "downstream"):
        axes[axis] = (*getattr(config.grid, axis), wanted[axis])
    changes["grid"] = config.grid.model_copy(update=axes)
    changes["geometry"] = config.geometry.model_copy(update={"enabled": stage == "geometry"})
    jobs = Study(config.model_copy(update=changes)).jobs.values()
    job = next(job for job in jobs if job.stage == stage and job.coordinates.items() <= wanted.items())
    return dataclasses.replace(job, folder=args.output, root=args.output.parent)


def check_sizes(encoder: Encoder, given: dict[str, Any], path: Path | None) -> None:
    """Raise FinalError if the encoder of the file `path` has other sizes than `given` of the section `model`."""
    other = {key: size for key, size in encoder.sizes.items() if given.get(key, size) != size}
    if other:
        said = "; ".join(f"{key} {size}, not {given[key]}" for key, size in other.items())
        raise FinalError(f"{path} holds an encoder of other sizes than the section `model`: {said}")


def count(text: str) -> int:
    """A positive number of a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _seed(text: str) -> int:
    """A seed of a command line."""
    if not text.isdecimal() or int(text) > MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MOST:,}")
    return int(text)


def _model_of(path: Path, config: Config) -> Model:
    """The `model` section of an encoder file, which must not contradict the study file."""
    encoder, given = load_encoder(path), config.model.model_dump(include=config.model.model_fields_set)
    check_sizes(encoder, given, path)
    return Model.model_validate({**given, **encoder.sizes})
